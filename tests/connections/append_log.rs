//! The log on disk, begun and ended while clients are busy.

use crate::server::Server;

const REFUSED: &str =
    "-ERR CONFIG SET failed (possibly related to argument 'appendonly') - it is not changed inside a transaction";

#[test]
fn a_transaction_neither_begins_nor_ends_the_log() {
    let server = Server::start(&["--save", "", "--enable-debug-command", "yes"]);
    let mut client = server.client();
    let mut in_a_transaction = |request: &str| {
        client.send(&["MULTI", "SET a 1", request, "EXEC", "SET a 2"]);
        let replies: Vec<String> = (0..5).map(|_| client.receive()).collect();
        assert_eq!(replies[4], "+OK", "who holds shards does not wait for them");
        replies[3].strip_prefix("*2 +OK ").expect("two replies").to_owned()
    };
    assert_eq!(in_a_transaction("CONFIG SET appendonly yes"), REFUSED);
    assert!(in_a_transaction("DEBUG LOG-READER ON").starts_with("-ERR"));
    assert_eq!(server.client().ask("CONFIG SET appendonly yes"), "+OK");
    assert_eq!(in_a_transaction("CONFIG SET appendonly no"), REFUSED);
    assert_eq!(in_a_transaction("CONFIG SET appendonly yes appendfsync always"), "+OK");
    assert_eq!(in_a_transaction("BGREWRITEAOF"), "+Background append only file rewriting scheduled");
}

#[test]
fn the_log_begins_and_ends_beside_transactions_that_look_at_it() {
    let server = Server::start(&["--save", "", "--threads", "2"]);
    std::thread::scope(|scope| {
        let transactions = scope.spawn(|| {
            let mut client = server.client();
            for round in 0..300 {
                client.send(&[
                    "MULTI",
                    &format!("SET key:{round} 1"),
                    "INFO persistence",
                    "CONFIG SET timeout 0",
                    "EXEC",
                ]);
                let last = (0..5).map(|_| client.receive()).last().expect("a reply");
                assert!(last.starts_with("*3 +OK $"), "{last}");
            }
        });
        let mut client = server.client();
        for _ in 0..20 {
            assert_eq!(client.ask("CONFIG SET appendonly yes"), "+OK");
            assert_eq!(client.ask("CONFIG SET appendonly no"), "+OK");
        }
        transactions.join().expect("no transaction waits for ever");
    });
}
