//! Damaged files: snapshots, Redis's logs, segments of ours. Whatever is in them is read or refused, and takes no more memory and
//! time than its length allows.

use super::{NOW_MS, Random, fuzz};
use starling::engine::{Engine, Group};
use starling::persistence::redis_log::commands::{Commands, Item, Transaction};
use starling::persistence::redis_log::manifest::Manifest;
use starling::persistence::segment::{self, BLOCK_HEADER_BYTES, Blocks, HEADER_BYTES, Header};
use starling::rdb::file::{Reader, Record};
use starling::rdb::{Content, checksum, payload};
use starling::values::Limits;

/// Snapshots of every kind of value in every form, by those who have written them.
const SNAPSHOTS: [&[u8]; 7] = [
    include_bytes!("../fixtures/rdb/redis-7.0.rdb"),
    include_bytes!("../fixtures/rdb/redis-7.0-frequency.rdb"),
    include_bytes!("../fixtures/rdb/redis-8.0.rdb"),
    include_bytes!("../fixtures/rdb/redis-8.0-idle.rdb"),
    include_bytes!("../fixtures/rdb/redis-8.0-cluster.rdb"),
    include_bytes!("../fixtures/rdb/valkey-9.1.rdb"),
    include_bytes!("../fixtures/rdb/valkey-9.1-cluster.rdb"),
];

const SEGMENT: &[u8] = include_bytes!("../fixtures/log/every-effect.segment");

const COMMANDS: &[u8] =
    b"#TS:1700000000\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nvalue\r\n\
    *1\r\n$5\r\nMULTI\r\n*4\r\n$4\r\nHSET\r\n$1\r\nh\r\n$1\r\nf\r\n$0\r\n\r\n*1\r\n$4\r\nEXEC\r\n";

const MANIFEST: &[u8] = b"file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.3.incr.aof seq 3 type i\n";

/// Changes some of these bytes: one of them, a length, a piece from elsewhere, the end.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        let upto = (at + random.below(40)).min(bytes.len());
        match random.below(8) {
            0..3 => bytes[at] = random.next() as u8,
            3 => bytes[at] ^= 1 << random.below(8),
            // What lengths and counts look like when they are great.
            4 => bytes[at..upto].fill([0x00, 0x7f, 0x80, 0x81, 0xff][random.below(5)]),
            5 => drop(bytes.drain(at..upto)),
            6 => {
                let (piece, to) = (bytes[at..upto].to_vec(), random.below(bytes.len()));
                bytes.splice(to..to, piece);
            }
            _ => bytes.truncate(at),
        }
    }
}

/// A value that was read can be written, and is read again.
fn comes_back(content: &Content) {
    let written = match content {
        Content::String(string) => payload::of_string(string),
        Content::Collection(value) => payload::of_value(value),
    };
    payload::read(&written, &Limits::default(), 0).expect("what was written here");
}

/// Reads a snapshot to its end, or to where it is refused. The values, as payloads without a footer.
fn read_snapshot(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (limits, mut images) = (Limits::default(), Vec::new());
    let Ok(mut reader) = Reader::new(bytes) else { return images };
    while let Ok(Some(record)) = reader.next_record() {
        let Record::Key(key) = record else { continue };
        images.push([&[key.kind], key.image].concat());
        if let Ok(Some(content)) = key.read(&limits, NOW_MS) {
            comes_back(&content);
        }
    }
    images
}

#[test]
fn damaged_snapshots_are_read_or_refused() {
    fuzz(|random| {
        let mut bytes = SNAPSHOTS[random.below(SNAPSHOTS.len())].to_vec();
        damage(random, &mut bytes);
        read_snapshot(&bytes);
    });
}

#[test]
fn damaged_values_of_every_form_are_read_or_refused() {
    let images: Vec<Vec<u8>> = SNAPSHOTS.iter().flat_map(|snapshot| read_snapshot(snapshot)).collect();
    let count = images.len();
    assert!(count > 100, "{count} values");
    let images = &images;
    fuzz(|random| {
        let mut bytes = images[random.below(count)].clone();
        damage(random, &mut bytes);
        // Forms of old have no writer any more: the bytes of one kind are read as another.
        if random.below(4) == 0 && !bytes.is_empty() {
            bytes[0] = random.below(30) as u8;
        }
        bytes.extend_from_slice(&[payload::VERSION, 12, 80][random.below(3)].to_le_bytes());
        bytes.extend_from_slice(&checksum::of(&bytes).to_le_bytes());
        if let Ok(content) = payload::read(&bytes, &Limits::default(), NOW_MS) {
            comes_back(&content);
        }
    });
}

#[test]
fn damaged_logs_of_redis_are_read_or_refused() {
    fuzz(|random| {
        let mut bytes = COMMANDS.repeat(1 + random.below(3));
        damage(random, &mut bytes);
        let (mut commands, mut transaction) = (Commands::new(&*bytes, 0), Transaction::default());
        while let Ok(Some(item)) = commands.next_item() {
            if let Item::Command(words) = item {
                assert!(words.iter().map(Vec::len).sum::<usize>() <= bytes.len());
                transaction.note(&words, commands.begin());
            }
        }
        assert!(commands.begin() <= bytes.len() as u64);
        let mut manifest = MANIFEST.to_vec();
        damage(random, &mut manifest);
        let _ = Manifest::parse(&manifest);
    });
}

/// Replays what is in the blocks of a segment, as far as it goes.
fn replay(bytes: &[u8], number: u32) -> usize {
    let (engine, mut replayed) = (Engine::new(16), 0);
    let mut blocks = Blocks::new(bytes, number);
    for block in blocks.by_ref() {
        let mut rest = block.groups;
        while let Some(group) = Group::read(&mut rest) {
            if engine.replay(group).is_err() {
                return replayed;
            }
            replayed += 1;
        }
    }
    blocks.end();
    replayed
}

#[test]
fn damaged_segments_are_replayed_up_to_the_damage_or_refused() {
    let number = Header::decode(SEGMENT).expect("a segment").number;
    let groups = Blocks::new(SEGMENT, number).map(|block| block.groups).collect::<Vec<_>>().concat();
    assert!(replay(SEGMENT, number) > 20);
    let groups = &groups;
    fuzz(|random| {
        // As a disk damages it.
        let mut bytes = SEGMENT.to_vec();
        damage(random, &mut bytes);
        let _ = Header::decode(&bytes);
        if random.below(8) == 0 {
            replay(&bytes, number);
        }
        // As somebody would who knows of the checksums.
        let mut block = vec![0; BLOCK_HEADER_BYTES];
        let mut changed = groups.clone();
        damage(random, &mut changed);
        block.extend_from_slice(&changed);
        segment::seal(&mut block, number, HEADER_BYTES as u64, HEADER_BYTES as u64);
        bytes = SEGMENT[..HEADER_BYTES].to_vec();
        bytes.extend_from_slice(&block);
        replay(&bytes, number);
    });
}
