//! The cluster: who is a member, who owns which slot, and how slots move.
