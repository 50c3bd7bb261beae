//! Messages and replies on one connection, in the order that Redis gives them.

use crate::server::{Client, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// How often the races are run; more by this variable of the environment.
const ROUNDS: usize = 1000;
const ROUNDS_VARIABLE: &str = "STARLING_ORDER_ROUNDS";

fn rounds() -> usize {
    std::env::var(ROUNDS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// Clients that publish to `a` without a pause until this is dropped.
struct Publishers {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Publishers {
    fn start(server: &Server) -> Publishers {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = (0..2).map(|_| Publishers::publish(server.client(), Arc::clone(&is_over))).collect();
        Publishers { is_over, threads }
    }

    fn publish(mut client: Client, is_over: Arc<AtomicBool>) -> JoinHandle<()> {
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                client.send(&["PUBLISH a m"; 16]);
                (0..16).for_each(|_| drop(client.receive()));
            }
        })
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Receives what must be this, after any number of messages.
fn receive_after_messages(client: &mut Client, message: &str, expected: &str) {
    loop {
        let received = client.receive();
        if received != message {
            assert_eq!(received, expected);
            return;
        }
    }
}

/// Subscribes and leaves again with publishers at work: behind the confirmation, no message may come.
fn check_leaving(subscribe: &str, subscribed: &str, message: &str, leave: &[&str], replies: &[&str]) {
    let server = Server::start(&["--threads", "2"]);
    let mut client = server.client();
    let _publishers = Publishers::start(&server);
    for _ in 0..rounds() {
        client.send(&[subscribe]);
        receive_after_messages(&mut client, message, subscribed);
        // Some messages are on their way.
        assert_eq!(client.receive(), message);
        client.send(leave);
        let (first, others) = replies.split_first().expect("a reply");
        receive_after_messages(&mut client, message, first);
        others.iter().for_each(|reply| assert_eq!(client.receive(), *reply));
    }
}

const SUBSCRIBED: &str = "*3 $9 subscribe $1 a :1";
const MESSAGE: &str = "*3 $7 message $1 a $1 m";

#[test]
fn no_message_comes_behind_the_confirmation_of_unsubscribe() {
    let unsubscribed = "*3 $11 unsubscribe $1 a :0";
    check_leaving("SUBSCRIBE a", SUBSCRIBED, MESSAGE, &["UNSUBSCRIBE a", "GET k"], &[unsubscribed, "$-1"]);
}

#[test]
fn no_message_comes_behind_the_confirmation_of_punsubscribe() {
    let subscribed = "*3 $10 psubscribe $2 a* :1";
    let message = "*4 $8 pmessage $2 a* $1 a $1 m";
    let unsubscribed = "*3 $12 punsubscribe $2 a* :0";
    check_leaving("PSUBSCRIBE a*", subscribed, message, &["PUNSUBSCRIBE", "GET k"], &[unsubscribed, "$-1"]);
}

#[test]
fn no_message_comes_behind_the_reply_of_reset() {
    check_leaving("SUBSCRIBE a", SUBSCRIBED, MESSAGE, &["RESET", "GET k"], &["+RESET", "$-1"]);
}

#[test]
fn no_message_of_the_former_protocol_comes_behind_hello() {
    let server = Server::start(&["--threads", "2"]);
    let mut client = server.client();
    let _publishers = Publishers::start(&server);
    client.send(&["HELLO 3"]);
    assert!(client.receive().starts_with("%7"));
    client.send(&["SUBSCRIBE a"]);
    let message = |kind: char| MESSAGE.replacen('*', &kind.to_string(), 1);
    assert_eq!(client.receive(), SUBSCRIBED.replacen('*', ">", 1));
    for _ in 0..rounds() {
        assert_eq!(client.receive(), message('>'));
        client.send(&["HELLO 2"]);
        loop {
            let received = client.receive();
            if received.starts_with("*14") {
                break;
            }
            assert_eq!(received, message('>'));
        }
        assert_eq!(client.receive(), message('*'));
        // A subscriber that speaks RESP2 can only leave and begin anew.
        client.send(&["RESET", "HELLO 3", "SUBSCRIBE a"]);
        receive_after_messages(&mut client, &message('*'), "+RESET");
        assert!(client.receive().starts_with("%7"));
        assert_eq!(client.receive(), SUBSCRIBED.replacen('*', ">", 1));
    }
}

#[test]
fn ones_own_message_comes_before_the_reply_to_publish() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert!(client.ask("HELLO 3").starts_with("%7"));
    client.send(&["SUBSCRIBE a", "PUBLISH a 1", "UNSUBSCRIBE a", "GET k"]);
    let expected = [">3 $9 subscribe $1 a :1", ">3 $7 message $1 a $1 1", ":1", ">3 $11 unsubscribe $1 a :0", "_"];
    expected.iter().for_each(|reply| assert_eq!(client.receive(), *reply));
}

#[test]
fn messages_stand_before_the_reply_of_exec_not_in_it() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert!(client.ask("HELLO 3").starts_with("%7"));
    client.send(&["SUBSCRIBE a", "MULTI", "PUBLISH a 1", "UNSUBSCRIBE a", "GET k", "EXEC", "GET k"]);
    let expected = [">3 $9 subscribe $1 a :1", "+OK", "+QUEUED", "+QUEUED", "+QUEUED", ">3 $7 message $1 a $1 1"];
    expected.iter().for_each(|reply| assert_eq!(client.receive(), *reply));
    let exec = client.receive();
    assert!(exec.starts_with("*3 :1 "), "{exec}");
}

#[test]
fn a_silenced_publish_still_delivers_ones_own_message() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert!(client.ask("HELLO 3").starts_with("%7"));
    assert_eq!(client.ask("SUBSCRIBE a"), ">3 $9 subscribe $1 a :1");
    client.send(&["CLIENT REPLY SKIP", "PUBLISH a 1"]);
    assert_eq!(client.receive(), ">3 $7 message $1 a $1 1");
}
