//! The replies of HELP subcommands, in the frame that Redis puts around them.

use crate::resp::reply::ReplyWriter;

/// Writes the lines of a container's HELP.
pub fn write(reply: &mut ReplyWriter<'_>, container: &str, lines: &[&str]) {
    reply.array(lines.len() + 3);
    reply.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    lines.iter().for_each(|line| reply.simple(line));
    reply.simple("HELP");
    reply.simple("    Print this help.");
}
