//! What is in a file, printed: snapshots and Redis's logs as commands, our log as what it did to which key.

use super::{Kind, contents, effects, log, words};
use crate::persistence::disk::{Directory, Disk};
use crate::persistence::manifest::{Manifest, Names};
use crate::persistence::recovery;
use crate::persistence::redis_log::RedisLog;
use crate::persistence::redis_log::commands::{Commands, Item};
use crate::persistence::segment::{Blocks, Header};
use crate::rdb::file::{Reader, Record};
use crate::values::Limits;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Prints a file, or a directory of files that belong together.
///
/// # Errors
/// Where it is damaged, or cannot be read or printed. What could be read has been printed then.
pub fn print(path: &Path, kind: &Kind, out: &mut impl Write) -> io::Result<()> {
    match kind {
        Kind::Rdb | Kind::Commands => print_file(path, out),
        Kind::Segment => print_segment(path, out),
        Kind::Log { directory, stem } => print_log(directory, stem, out),
        Kind::RedisLog { manifest } => RedisLog::open(manifest)?
            .files()
            .try_for_each(|file| print_file(file, out).map_err(|error| of(file, error))),
    }
}

fn of(file: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

fn damaged(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// A snapshot, commands, or one and then the other.
fn print_file(path: &Path, out: &mut impl Write) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut first = Vec::new();
    Read::by_ref(&mut file).take(6).read_to_end(&mut first)?;
    file.seek(SeekFrom::Start(0))?;
    let mut end = 0;
    if first.starts_with(b"REDIS") || first == *b"VALKEY" || path.extension().is_some_and(|ending| ending == "rdb") {
        end = print_rdb(&mut file, out)?;
        file.seek(SeekFrom::Start(end))?;
    }
    let mut commands = Commands::new(file, end);
    while let Some(item) = commands.next_item().map_err(damaged)? {
        if let Item::Command(words) = item {
            words::write_line(out, words.iter().map(Vec::as_slice))?;
        }
    }
    Ok(())
}

/// Returns where it ends.
fn print_rdb(file: &mut File, out: &mut impl Write) -> io::Result<u64> {
    let mut reader = Reader::new(file).map_err(damaged)?;
    let limits = Limits::default();
    while let Some(record) = reader.next_record().map_err(damaged)? {
        match record {
            Record::Auxiliary { .. } | Record::Sizes { .. } => {}
            Record::Database(number) => words::write_line(out, [b"SELECT", number.to_string().as_bytes()])?,
            Record::Function(code) => words::write_line(out, [&b"FUNCTION"[..], b"LOAD", &*code])?,
            Record::Key(key) => match key.read(&limits, 0) {
                Ok(Some(content)) => contents::write_key(out, &key.key, &content, key.deadline)?,
                Ok(None) => {}
                // Where the next key begins is known all the same.
                Err(error) => eprintln!("the key {} is left out: {error}", words::shown(&key.key)),
            },
        }
    }
    Ok(reader.offset())
}

fn print_segment(path: &Path, out: &mut impl Write) -> io::Result<()> {
    let bytes = std::fs::read(path)?;
    let header = Header::decode(&bytes).map_err(damaged)?;
    for block in Blocks::new(&bytes, header.number) {
        let mut rest = block.groups;
        while !rest.is_empty() {
            let group = crate::engine::Group::read(&mut rest);
            effects::write_group(out, group.ok_or_else(|| damaged("a block holds something that is no group"))?)?;
        }
    }
    Ok(())
}

fn print_log(directory: &Path, stem: &str, out: &mut impl Write) -> io::Result<()> {
    let (disk, names) = (Directory::open(directory)?, Names::new(stem));
    let manifest = Manifest::read(&disk, &names)?.ok_or_else(|| damaged("there is no manifest"))?;
    if manifest.base > 0 {
        let name = names.base(manifest.base);
        writeln!(out, "# {}/{name}", disk.place())?;
        print_file(&directory.join(name), out)?;
    }
    let owner = log::owner_of(&directory.join(names.segment(manifest.first))).unwrap_or_default();
    let mut printed = String::new();
    let visit = |group: crate::engine::Group<'_>, file: &str, _| {
        if printed != file {
            printed = file.to_owned();
            writeln!(out, "# {}/{file}", disk.place()).map_err(|error| error.to_string())?;
        }
        effects::write_group(out, group).map_err(|error| error.to_string())
    };
    recovery::read(&disk, &names, owner, manifest.first, visit).map(|_| ()).map_err(damaged)
}
