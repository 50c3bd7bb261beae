//! The log on disk, begun and ended while clients are busy.

use crate::server::Server;
use crate::snapshots::until_loaded;

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

/// What a start would find in the log, found without one: what was there, changes made in transactions and since a rewriting,
/// deadlines.
#[test]
fn the_log_is_loaded_anew_while_the_server_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().display().to_string();
    for fsync in ["always", "everysec", "no"] {
        let directives = [
            "--dir",
            &place,
            "--save",
            "",
            "--enable-debug-command",
            "yes",
            "--appendonly",
            "yes",
            "--appendfsync",
            fsync,
        ];
        let server = Server::start(&directives);
        let mut client = server.client();
        until_loaded(&mut client);
        client.ask("FLUSHALL");
        for round in 0..3 {
            for request in ["INCR counter", "RPUSH list a b c", "LPOP list", "SET volatile 1 PX 100000000", "MULTI"] {
                client.ask(request);
            }
            client.ask("HINCRBY hash field 2");
            client.ask("XADD stream * f v");
            assert!(client.ask("EXEC").starts_with("*2 "));
            if round == 1 {
                client.ask("BGREWRITEAOF");
            }
            assert_eq!(client.ask("DEBUG LOADAOF"), "+OK", "{fsync}");
            assert_eq!(client.ask("GET counter"), format!("$1 {}", round + 1));
            assert_eq!(client.ask("LLEN list"), format!(":{}", 2 * (round + 1)));
            assert_eq!(client.ask("HGET hash field"), format!("$1 {}", 2 * (round + 1)));
            assert_eq!(client.ask("XLEN stream"), format!(":{}", round + 1));
            assert_eq!(client.ask("DBSIZE"), ":5");
            assert!(client.ask("PTTL volatile").starts_with(":99"));
        }
        client.send(&["MULTI", "DEBUG LOADAOF", "EXEC"]);
        let replies: Vec<String> = (0..3).map(|_| client.receive()).collect();
        assert!(replies[2].starts_with("*1 -ERR"), "{replies:?}");
        drop(client);
        drop(server);
        let again = Server::start(&directives);
        let mut client = again.client();
        until_loaded(&mut client);
        assert_eq!(client.ask("GET counter"), "$1 3", "it was kept further");
    }
    let server = Server::start(&["--save", "", "--enable-debug-command", "yes"]);
    assert_eq!(server.client().ask("DEBUG LOADAOF"), "-ERR there is no log: 'appendonly' is 'no'");
}
