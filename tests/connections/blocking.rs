//! Commands that wait for keys, over real sockets.

use crate::server::{Client, LIMIT, Server};
use std::time::{Duration, Instant};

/// Waits until so many clients wait for keys.
fn until_blocked(observer: &mut Client, count: usize) {
    let started = Instant::now();
    while !observer.ask("INFO clients").contains(&format!("blocked_clients:{count} ")) {
        assert!(started.elapsed() < LIMIT, "{}", observer.ask("INFO clients"));
    }
}

/// A client whose command waits.
fn blocked(server: &Server, observer: &mut Client, request: &str, count: usize) -> Client {
    let mut client = server.client();
    client.send(&[request]);
    until_blocked(observer, count);
    client
}

#[test]
fn clients_are_served_in_the_order_of_coming_and_what_they_sent_behind_comes_after() {
    let server = Server::start(&["--threads", "2"]);
    let mut observer = server.client();
    let mut first = blocked(&server, &mut observer, "BLPOP list other 0", 1);
    let mut second = blocked(&server, &mut observer, "BRPOP list 0", 2);
    first.send(&["ECHO behind"]);
    assert!(observer.ask("CLIENT LIST").contains("flags=b"));
    assert_eq!(observer.ask("RPUSH list a b c"), ":3");
    assert_eq!((first.receive(), first.receive()), ("*2 $4 list $1 a".into(), "$6 behind".into()));
    assert_eq!(second.receive(), "*2 $4 list $1 c");
    assert_eq!(observer.ask("LRANGE list 0 -1"), "*1 $1 b");
    until_blocked(&mut observer, 0);
}

#[test]
fn who_waits_for_several_elements_takes_what_is_there() {
    let server = Server::start(&[]);
    let mut observer = server.client();
    let mut first = blocked(&server, &mut observer, "BLMPOP 0 2 other list RIGHT COUNT 2", 1);
    let mut second = blocked(&server, &mut observer, "BLMPOP 0 1 list LEFT COUNT 10", 2);
    assert_eq!(observer.ask("RPUSH list a b c"), ":3");
    assert_eq!(first.receive(), "*2 $4 list *2 $1 c $1 b");
    assert_eq!(second.receive(), "*2 $4 list *1 $1 a");
    assert_eq!(observer.ask("EXISTS list"), ":0");
    assert_eq!(observer.ask("BLMPOP 0.001 1 list LEFT"), "*-1");
}

#[test]
fn what_makes_a_key_ready_serves_whoever_waits_for_it() {
    let server = Server::start(&[]);
    let mut observer = server.client();
    // What is done, and what the client that waits for `list` gets.
    let cases: [(&[&str], &str); 8] = [
        (&["RPUSH list 1"], "*2 $4 list $1 1"),
        (&["RPUSH away 2", "RENAME away list"], "*2 $4 list $1 2"),
        (&["RPUSH away 3", "COPY away list", "DEL away"], "*2 $4 list $1 3"),
        (&["MULTI", "RPUSH list 4 5", "LPOP list", "EXEC"], "*2 $4 list $1 5"),
        (&["MULTI", "RPUSH list 6", "DEL list", "EXEC", "RPUSH list 7"], "*2 $4 list $1 7"),
        (&["SELECT 1", "RPUSH list 8", "SWAPDB 0 1", "SELECT 0"], "*2 $4 list $1 8"),
        (&["SET list string", "DEL list", "RPUSH list 9"], "*2 $4 list $1 9"),
        (&["RPUSH away 10", "SORT away STORE list", "DEL away"], "*2 $4 list $2 10"),
    ];
    for (requests, expected) in cases {
        let mut client = blocked(&server, &mut observer, "BLPOP list 0", 1);
        requests.iter().for_each(|request| drop(observer.ask(request)));
        assert_eq!(client.receive(), expected, "{requests:?}");
        assert_eq!(observer.ask("EXISTS list"), ":0", "{requests:?}");
    }
}

/// Who pushes sees that those who waited have been served, also where that needs another shard.
#[test]
fn elements_are_moved_before_who_pushed_goes_on() {
    let server = Server::start(&["--threads", "2"]);
    let mut observer = server.client();
    let mut chained = blocked(&server, &mut observer, "BLMOVE c d LEFT RIGHT 0", 1);
    let mut mover = blocked(&server, &mut observer, "BLMOVE a c RIGHT LEFT 0", 2);
    let mut wrong = blocked(&server, &mut observer, "BRPOPLPUSH a string 0", 3);
    observer.send(&["SET string s", "LPUSH a 1", "LLEN a", "LLEN c", "LRANGE d 0 -1"]);
    let replies: Vec<String> = (0..5).map(|_| observer.receive()).collect();
    assert_eq!(replies, ["+OK", ":1", ":0", ":0", "*1 $1 1"]);
    assert_eq!((mover.receive(), chained.receive()), ("$1 1".into(), "$1 1".into()));
    assert_eq!(observer.ask("LPUSH a 2"), ":1");
    assert!(wrong.receive().starts_with("-WRONGTYPE"));
    assert_eq!(observer.ask("LRANGE a 0 -1"), "*1 $1 2", "what cannot be pushed is not popped");
}

#[test]
fn waiting_ends_by_time_by_others_and_by_leaving() {
    let server = Server::start(&["--threads", "2"]);
    let (mut observer, mut client) = (server.client(), server.client());
    for request in ["BLPOP list 0.05", "BLMOVE list other LEFT LEFT 0.05", "BRPOPLPUSH list other 0.05"] {
        assert_eq!(client.ask(request), "*-1", "{request}");
    }
    client.send(&["MULTI", "BLPOP list 0", "BLMOVE list other LEFT LEFT 0", "EXEC"]);
    (0..3).for_each(|_| drop(client.receive()));
    assert_eq!(client.receive(), "*2 *-1 $-1", "nothing waits in a transaction");
    let id = client.ask("CLIENT ID").trim_start_matches(':').to_owned();
    for (how, reply) in [("", "*-1"), (" TIMEOUT", "*-1"), (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK")]
    {
        client.send(&["BLPOP list 0"]);
        until_blocked(&mut observer, 1);
        assert_eq!(observer.ask(&format!("CLIENT UNBLOCK {id}{how}")), ":1");
        assert_eq!(client.receive(), reply);
        assert_eq!(observer.ask(&format!("CLIENT UNBLOCK {id}{how}")), ":0", "it waits no more");
    }
    let gone = blocked(&server, &mut observer, "BLPOP list 0", 1);
    let mut waiting = blocked(&server, &mut observer, "BLPOP list 0", 2);
    drop(gone);
    until_blocked(&mut observer, 1);
    assert_eq!(observer.ask("RPUSH list 1"), ":1");
    assert_eq!(waiting.receive(), "*2 $4 list $1 1", "who has left takes nothing");
    for request in ["BLPOP list x", "BLPOP list -1", "BLMOVE list other UP LEFT 0", "BLPOP list"] {
        assert!(client.ask(request).starts_with("-ERR"), "{request}");
    }
    assert_eq!((client.ask("SET list s"), client.ask("LLEN other")), ("+OK".into(), ":0".into()));
    assert!(client.ask("BLPOP list 0").starts_with("-WRONGTYPE"));
}

/// Hundreds of clients that wait, time out and leave, beside several that push: each element is seen once.
#[test]
fn many_clients_share_what_is_pushed() {
    const CLIENTS: usize = 200;
    const ELEMENTS: usize = 2000;
    let server = Server::start(&["--threads", "2"]);
    let (sender, seen) = std::sync::mpsc::channel::<String>();
    let rest = std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (mut client, sender) = (server.client(), sender.clone());
            scope.spawn(move || {
                let request = format!("BLPOP list:{} list:{} 1", number % 7, (number + 1) % 7);
                loop {
                    match client.ask(&request).as_str() {
                        "*-1" => return,
                        reply => drop(sender.send(reply.rsplit(' ').next().unwrap_or_default().to_owned())),
                    }
                }
            });
        }
        for pusher in 0..4 {
            let mut client = server.client();
            scope.spawn(move || {
                for element in (pusher..ELEMENTS).step_by(4) {
                    let request = format!("RPUSH list:{} {element}", element % 7);
                    assert!(client.ask(&request).starts_with(':'));
                }
            });
        }
        drop(sender);
        let mut all: Vec<usize> = seen.iter().map(|element| element.parse().expect("a number")).collect();
        all.sort_unstable();
        all
    });
    assert!(rest == (0..ELEMENTS).collect::<Vec<_>>(), "{} of {ELEMENTS} elements were seen", rest.len());
    let started = Instant::now();
    while !server.client().ask("INFO clients").contains("blocked_clients:0 ") {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
