//! `starling export`: the keys of a server, or of all nodes of a cluster, in a snapshot.

use super::client::{Connection, append_request};
use super::servers::{Bar, Login, Servers, shown, succeeded};
use crate::base::clock;
use crate::files::transfer::Export;
use clap::Parser;
use redis_protocol::resp2::types::OwnedFrame;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Keys that are asked for at once: their values are in memory together.
const KEYS_AT_ONCE: usize = 64;

/// Writes the keys of a server, or of all nodes of a cluster, to a snapshot (RDB). Each key is as it is when it is read: they
/// are not all of one moment, as those of BGSAVE are.
#[derive(Parser)]
#[command(name = "starling export")]
struct Options {
    /// The file; one that has the name is replaced when the new one is whole.
    file: PathBuf,
    /// The server, or any node of the cluster.
    #[arg(long, default_value = "127.0.0.1:6379")]
    from: String,
    #[command(flatten)]
    login: Login,
}

/// Runs `starling export`.
pub(super) fn run(arguments: &[String]) -> ExitCode {
    let words = std::iter::once("starling export").chain(arguments.iter().map(String::as_str));
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => return super::usage(&error),
    };
    match export(&options) {
        Ok((keys, bytes)) => {
            println!("{keys} keys in {}, {bytes} bytes", options.file.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nothing was exported: {error}");
            ExitCode::FAILURE
        }
    }
}

fn export(options: &Options) -> io::Result<(u64, u64)> {
    let mut servers = Servers::find(&options.from, options.login.clone())?;
    let mut export = Export::begin(&options.file)?;
    let read = read_all(&mut servers, &mut export);
    match read {
        Ok(()) => {
            let keys = export.keys;
            Ok((keys, export.finish()?))
        }
        Err(error) => {
            export.give_up();
            Err(error)
        }
    }
}

fn read_all(servers: &mut Servers, export: &mut Export) -> io::Result<()> {
    let mut connections = Vec::new();
    let mut total = 0;
    for address in servers.addresses() {
        let mut connection = servers.open(address)?;
        let databases = databases_of(&mut connection)?;
        total += databases.iter().map(|(_, keys)| keys).sum::<u64>();
        connections.push((address, connection, databases));
    }
    let mut bar = Bar::new(total);
    for (address, connection, databases) in &mut connections {
        for (database, _) in databases {
            let read = read_database(connection, *database, export, &mut bar);
            read.map_err(|error| io::Error::new(error.kind(), format!("{address}, database {database}: {error}")))?;
        }
    }
    bar.end();
    // What was on its way from one node to another may have been on neither when it was asked.
    if servers.is_cluster() && servers.look()? {
        return Err(io::Error::other("slots have moved meanwhile, and keys may be missing: export again"));
    }
    Ok(())
}

/// Numbers and keys, of those that have some.
fn databases_of(connection: &mut Connection) -> io::Result<Vec<(u64, u64)>> {
    let info = connection.text(&["INFO", "keyspace"])?;
    let database_of = |line: &str| {
        let (number, rest) = line.strip_prefix("db")?.split_once(":keys=")?;
        Some((number.parse().ok()?, rest.split(',').next()?.parse().ok()?))
    };
    Ok(info.lines().filter_map(database_of).collect())
}

fn read_database(connection: &mut Connection, database: u64, export: &mut Export, bar: &mut Bar) -> io::Result<()> {
    succeeded(connection.call(&[b"SELECT", database.to_string().as_bytes()])?)?;
    let mut cursor = b"0".to_vec();
    loop {
        let answer = succeeded(connection.call(&[b"SCAN", &cursor, b"COUNT", b"1000"])?)?;
        let (next, keys) = scanned(answer).ok_or_else(|| io::Error::other("an unexpected answer to SCAN"))?;
        for some in keys.chunks(KEYS_AT_ONCE) {
            read_keys(connection, database, some, export)?;
            bar.show(export.keys, export.keys);
        }
        if next == b"0" {
            return Ok(());
        }
        cursor = next;
    }
}

/// Cursor and keys of an answer to SCAN.
fn scanned(answer: OwnedFrame) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let OwnedFrame::Array(parts) = answer else { return None };
    let [OwnedFrame::BulkString(cursor), OwnedFrame::Array(keys)] = <[OwnedFrame; 2]>::try_from(parts).ok()? else {
        return None;
    };
    let bytes = |key| if let OwnedFrame::BulkString(bytes) = key { Some(bytes) } else { None };
    Some((cursor, keys.into_iter().map(bytes).collect::<Option<_>>()?))
}

/// Each key is there and expires at some moment, or has gone.
fn read_keys(connection: &mut Connection, database: u64, keys: &[Vec<u8>], export: &mut Export) -> io::Result<()> {
    let ask = |connection: &mut Connection, asks_ttl: &[u8]| {
        let mut requests = Vec::new();
        for key in keys {
            append_request(&mut requests, &[b"DUMP", key]);
            append_request(&mut requests, &[asks_ttl, key]);
        }
        connection.pipeline(&requests, 2 * keys.len())
    };
    let mut answers = ask(connection, b"PEXPIRETIME")?;
    let mut is_left = false;
    // Redis before 7.0 says only how much time is left.
    if matches!(answers.get(1), Some(OwnedFrame::Error(text)) if text.contains("unknown command")) {
        answers = ask(connection, b"PTTL")?;
        is_left = true;
    }
    for (key, pair) in keys.iter().zip(answers.chunks(2)) {
        let [payload, deadline] = pair else { break };
        let named =
            |answer| io::Error::other(format!("the key {}: {}", crate::files::words::shown(key), shown(answer)));
        match (payload, deadline) {
            (OwnedFrame::Null, _) | (_, OwnedFrame::Integer(-2)) => {}
            (OwnedFrame::BulkString(payload), OwnedFrame::Integer(deadline)) => {
                let deadline = u64::try_from(*deadline).ok();
                let now_ms = if is_left { clock::unix_us() / 1000 } else { 0 };
                export.add(database, key, payload, deadline.map(|deadline| deadline.saturating_add(now_ms)))?;
            }
            (OwnedFrame::BulkString(_), other) | (other, _) => return Err(named(other)),
        }
    }
    Ok(())
}
