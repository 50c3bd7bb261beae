//! SORT over real sockets: the keys that its patterns name lie under other locks than the key that is sorted.

use crate::server::Server;

#[test]
fn patterns_reach_keys_wherever_they_are() {
    let server = Server::start(&["--threads", "2"]);
    let mut client = server.client();
    for number in 0..300 {
        client.ask(&format!("RPUSH list {number}"));
        client.ask(&format!("SET weight:{number} {}", 300 - number));
        client.ask(&format!("HSET hash:{number} name n{number}"));
    }
    let last = "*6 $3 299 $1 1 $4 n299 $3 298 $1 2 $4 n298";
    let sort = "SORT list BY weight:* LIMIT 0 2 GET # GET weight:* GET hash:*->name";
    assert_eq!(client.ask(sort), last);
    assert_eq!(client.ask(&sort.replace("SORT", "SORT_RO")), last);
    for (request, reply) in [("MULTI", "+OK"), (sort, "+QUEUED"), ("SORT list LIMIT 0 1", "+QUEUED")] {
        assert_eq!(client.ask(request), reply);
    }
    assert_eq!(client.ask("EXEC"), format!("*2 {last} *1 $1 0"));
    assert_eq!(client.ask("SORT list BY weight:* GET hash:*->name STORE elsewhere"), ":300");
    assert_eq!(client.ask("LRANGE elsewhere 0 1"), "*2 $4 n299 $4 n298");
    assert_eq!(client.ask("SORT nothing STORE elsewhere"), ":0");
    assert_eq!(client.ask("EXISTS elsewhere"), ":0");
}

/// Everybody needs all locks, or some of them, at the same time: nobody may wait for ever, or see half of a change.
#[test]
fn sorting_by_other_keys_goes_on_beside_their_writers() {
    let server = Server::start(&["--threads", "2"]);
    let mut setup = server.client();
    setup.ask("RPUSH list 1 2");
    setup.ask("MSET a:1 0 a:2 0");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = server.client();
            for number in 0..500 {
                assert_eq!(writer.ask(&format!("MSET a:1 {number} a:2 {number}")), "+OK");
            }
        });
        let mut sorter = server.client();
        for _ in 0..500 {
            let reply = sorter.ask("SORT list GET a:*");
            let values: Vec<&str> = reply.split(' ').skip(2).step_by(2).collect();
            if let [first, second] = values[..] {
                assert_eq!(first, second, "{reply}");
            }
        }
    });
}
