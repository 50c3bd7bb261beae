//! Clients of the Unix socket (`unixsocket`), and what becomes of its file.

use super::output::eventually;
use super::server::Server;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A directory, and the path of a socket in it.
fn socket_path() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("starling.sock");
    (directory, path)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a readable path")
}

#[test]
fn clients_of_the_unix_socket_are_clients_like_others() {
    let (_directory, path) = socket_path();
    let server = Server::start(&["--unixsocket", text(&path), "--unixsocketperm", "700"]);
    let mut client = server.local_client(&path);
    assert_eq!(std::fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o700);
    assert_eq!(client.ask("SET key value"), "+OK");
    let mut other = server.client();
    assert_eq!(other.ask("GET key"), "$5 value");
    let line = client.ask("CLIENT INFO");
    let address = format!("{}:0", path.display());
    assert!(line.contains(&format!(" addr={address} laddr={address} ")), "{line}");
    assert!(line.contains(" flags=U "), "{line}");
    let list = other.ask("CLIENT LIST");
    assert!(list.contains(" flags=U ") && list.contains(" flags=N "), "{list}");
    assert_eq!(client.ask("CONFIG GET unixsocketperm"), "*2 $14 unixsocketperm $3 700");
    // More replies than the socket takes at once, while the client only sends.
    let requests = vec!["GET key"; 100_000];
    client.send(&requests);
    assert!(requests.iter().all(|_| client.receive() == "$5 value"));
    // The limit of clients holds here too, once those that only looked have gone.
    eventually("both are listed", || other.ask("CLIENT LIST").matches("id=").count() == 2);
    assert_eq!(other.ask("CONFIG SET maxclients 2"), "+OK");
    assert_eq!(said_at_the_door(&path), "-ERR max number of clients reached\r\n");
    // It waits with input behind it, and is noticed when it goes.
    client.send(&["WAIT 1 0", "PING"]);
    drop(client);
    eventually("it has gone", || other.ask("CLIENT LIST").matches("id=").count() == 1);
    assert_eq!(other.ask("CONFIG SET maxclients 10"), "+OK");
    let mut client = server.local_client(&path);
    assert_eq!(client.ask("PING"), "+PONG");
    assert_eq!(other.ask(&format!("CLIENT KILL ADDR {address}")), ":1");
    assert_eq!(client.try_receive(), None);
}

/// What a client is told that is not let in.
fn said_at_the_door(path: &Path) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(path).expect("a connection");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut stream, &mut said).expect("closed");
    said
}

#[test]
fn the_unix_socket_goes_with_its_server_and_what_a_dead_one_left_makes_way() {
    let (_directory, path) = socket_path();
    let killed = Server::start(&["--unixsocket", text(&path)]);
    assert_eq!(killed.local_client(&path).ask("PING"), "+PONG");
    drop(killed);
    assert!(path.exists(), "a process that was killed removes nothing");
    let mut server = Server::start(&["--unixsocket", text(&path)]);
    let mut client = server.local_client(&path);
    assert_eq!(client.ask("PING"), "+PONG");
    client.send(&["SHUTDOWN NOSAVE"]);
    let (status, log) = server.wait();
    assert!(status.success(), "{status}: {log:?}");
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_that_cannot_be_opened_stops_the_start() {
    let (directory, path) = socket_path();
    std::fs::write(&path, "of somebody else").expect("a file");
    let nowhere = directory.path().join("missing").join("socket");
    for path in [&path, &nowhere] {
        let ended = Command::new(env!("CARGO_BIN_EXE_starling"))
            .args(["--port", "0", "--unixsocket", text(path)])
            .output()
            .expect("the server's binary");
        assert_eq!(ended.status.code(), Some(1));
        let log = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(log.contains(&format!("cannot listen on the Unix socket '{}'", path.display())), "{log}");
    }
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "of somebody else");
}

#[test]
fn a_server_needs_some_door() {
    let ended =
        Command::new(env!("CARGO_BIN_EXE_starling")).args(["--port", "0"]).output().expect("the server's binary");
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stdout).contains("nobody could connect"));
    let (_directory, path) = socket_path();
    let mut server = Command::new(env!("CARGO_BIN_EXE_starling"))
        .args(["--port", "0", "--unixsocket", text(&path)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the server's binary");
    let mut log = std::io::BufRead::lines(std::io::BufReader::new(server.stdout.take().expect("piped")));
    assert!(log.any(|line| line.expect("a line").contains("Ready to accept connections")));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("a connection");
    std::io::Write::write_all(&mut stream, b"SHUTDOWN NOSAVE\r\n").expect("sent");
    assert!(server.wait().expect("it ends").success());
}
