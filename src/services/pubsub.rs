//! Channels: who subscribed to what, within this node.

use super::clients::Client;
use super::inbox::Message;
use crate::base::glob;
use crate::resp::reply::{Protocol, ReplyWriter};
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

type Subscribers = HashMap<Box<[u8]>, Vec<Arc<Client>>>;

/// Plain channels, patterns, and shard channels: three name spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Channel,
    Pattern,
    Shard,
}

#[derive(Debug, Default)]
struct Registry {
    channels: Subscribers,
    patterns: Subscribers,
    shards: Subscribers,
}

impl Registry {
    fn space(&mut self, space: Space) -> &mut Subscribers {
        match space {
            Space::Channel => &mut self.channels,
            Space::Pattern => &mut self.patterns,
            Space::Shard => &mut self.shards,
        }
    }
}

/// The channels of a node.
#[derive(Debug, Default)]
pub struct PubSub {
    registry: RwLock<Registry>,
}

impl PubSub {
    /// Adds a subscriber, who must not have subscribed to this yet.
    pub fn subscribe(&self, space: Space, channel: &[u8], client: &Arc<Client>) {
        self.registry.write().space(space).entry(channel.into()).or_default().push(Arc::clone(client));
    }

    /// Removes a subscriber. What was published to it before is in its inbox when this returns.
    pub fn unsubscribe(&self, space: Space, channel: &[u8], client: &Client) {
        let mut registry = self.registry.write();
        let subscribers = registry.space(space);
        if let Some(clients) = subscribers.get_mut(channel) {
            clients.retain(|other| other.id != client.id);
            if clients.is_empty() {
                subscribers.remove(channel);
            }
        }
    }

    /// Sends a message to everybody who listens; returns how many received it. `limit` is asked about each receiver
    /// with the bytes that wait for it, and closes those who are over it.
    pub fn publish(&self, channel: &[u8], message: &[u8], over_limit: impl Fn(&Client, usize) -> bool) -> usize {
        let registry = self.registry.read();
        let mut receivers = 0;
        if let Some(clients) = registry.channels.get(channel) {
            receivers += Frames::new(&[b"message", channel, message]).send(clients, &over_limit);
        }
        for (pattern, clients) in &registry.patterns {
            if glob::matches(pattern, channel) {
                receivers += Frames::new(&[b"pmessage", pattern, channel, message]).send(clients, &over_limit);
            }
        }
        receivers
    }

    /// Sends a message to the subscribers of a shard channel (SPUBLISH).
    pub fn publish_to_shard(
        &self,
        channel: &[u8],
        message: &[u8],
        over_limit: impl Fn(&Client, usize) -> bool,
    ) -> usize {
        let registry = self.registry.read();
        registry
            .shards
            .get(channel)
            .map_or(0, |clients| Frames::new(&[b"smessage", channel, message]).send(clients, &over_limit))
    }

    /// Does something while nobody publishes: what was published before is in the inboxes.
    pub fn pause<R>(&self, action: impl FnOnce() -> R) -> R {
        let _nobody_publishes = self.registry.write();
        action()
    }

    /// Channels that have subscribers, and match the pattern where one is given.
    pub fn channels(&self, space: Space, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let mut registry = self.registry.write();
        let subscribers = registry.space(space);
        subscribers.keys().filter(|channel| pattern.is_none_or(|p| glob::matches(p, channel))).cloned().collect()
    }

    /// How many subscribers a channel has.
    pub fn subscriber_count(&self, space: Space, channel: &[u8]) -> usize {
        self.registry.write().space(space).get(channel).map_or(0, Vec::len)
    }

    /// How many different patterns somebody listens to.
    pub fn pattern_count(&self) -> usize {
        self.registry.read().patterns.len()
    }

    /// How many channels somebody listens to.
    pub fn channel_count(&self, space: Space) -> usize {
        self.registry.write().space(space).len()
    }
}

/// A message in both protocols, each built at most once.
struct Frames<'a> {
    parts: &'a [&'a [u8]],
    resp2: std::cell::OnceCell<Bytes>,
    resp3: std::cell::OnceCell<Bytes>,
}

impl<'a> Frames<'a> {
    fn new(parts: &'a [&'a [u8]]) -> Frames<'a> {
        Frames { parts, resp2: std::cell::OnceCell::new(), resp3: std::cell::OnceCell::new() }
    }

    fn build(&self, protocol: Protocol) -> Bytes {
        let mut frame = Vec::new();
        let mut reply = ReplyWriter::new(&mut frame, protocol);
        reply.push(self.parts.len());
        self.parts.iter().for_each(|part| reply.bulk(part));
        frame.into()
    }

    fn send(&self, clients: &[Arc<Client>], over_limit: &impl Fn(&Client, usize) -> bool) -> usize {
        for client in clients {
            let frame = if client.resp3.load(Ordering::Relaxed) {
                self.resp3.get_or_init(|| self.build(Protocol::Resp3))
            } else {
                self.resp2.get_or_init(|| self.build(Protocol::Resp2))
            };
            if client.closing.load(Ordering::Relaxed) {
                continue;
            }
            let waiting = client.inbox.put(Message::Push(frame.clone()));
            if over_limit(client, waiting + client.output_bytes.load(Ordering::Relaxed)) {
                client.close();
            }
        }
        clients.len()
    }
}
