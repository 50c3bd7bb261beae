//! Why requests are parsed by hand: Starling's request decoder beside redis-protocol's, which decodes replies on links.
//!
//! `cargo bench --bench resp`. Besides throughput, it shows what no figure does: a request of 200 KB that ends the process
//! of whoever decodes it by recursion, before anybody has authenticated. That is tried in a child process.

use criterion::{BenchmarkId, Criterion, Throughput};
use redis_protocol::resp2;
use starling::resp::decoder::{Decoder, Limits};
use std::hint::black_box;
use std::process::{Command, Stdio};

/// Set in the child process that decodes the nested request: the name of the decoder.
const CHILD: &str = "STARLING_BENCH_NESTED";
/// What TCP usually delivers at once.
const SEGMENT_BYTES: usize = 1448;

fn set_requests(count: usize, value_bytes: usize) -> Vec<u8> {
    let value = "x".repeat(value_bytes);
    (0..count)
        .map(|number| format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{number:012}\r\n${value_bytes}\r\n{value}\r\n"))
        .collect::<String>()
        .into_bytes()
}

fn by_hand(decoder: &mut Decoder, bytes: &[u8]) -> usize {
    let limits = Limits::default();
    let (mut at, mut requests) = (0, 0);
    decoder.more();
    while let Ok(Some(length)) = decoder.decode(&bytes[at..], &limits) {
        black_box(decoder.arguments(decoder.decoded(), &bytes[at..at + length]).at(1));
        decoder.forget();
        at += length;
        requests += 1;
    }
    requests
}

fn by_redis_protocol(bytes: &[u8]) -> usize {
    let (mut at, mut requests) = (0, 0);
    while let Ok(Some((frame, length))) = resp2::decode::decode_range(&bytes[at..]) {
        black_box(frame);
        at += length;
        requests += 1;
    }
    requests
}

/// A pipeline that has arrived whole.
fn pipelines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline of 64 SET");
    for value_bytes in [16, 64, 1024] {
        let bytes = set_requests(64, value_bytes);
        group.throughput(Throughput::Elements(64));
        group.bench_with_input(BenchmarkId::new("by hand", value_bytes), &bytes, |bencher, bytes| {
            let mut decoder = Decoder::default();
            bencher.iter(|| assert_eq!(by_hand(&mut decoder, bytes), 64));
        });
        group.bench_with_input(BenchmarkId::new("redis-protocol", value_bytes), &bytes, |bencher, bytes| {
            bencher.iter(|| assert_eq!(by_redis_protocol(bytes), 64));
        });
    }
    group.finish();
}

/// One request with many arguments that arrives piece by piece: who begins again each time needs the square of the time.
fn pieces(criterion: &mut Criterion) {
    const KEYS: usize = 4000;
    let keys: String = (0..KEYS).map(|number| format!("$8\r\n{number:08}\r\n")).collect();
    let bytes = format!("*{}\r\n$4\r\nMGET\r\n{keys}", KEYS + 1).into_bytes();
    let mut group = criterion.benchmark_group("MGET of 4000 keys in TCP segments");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let arrivals = || (SEGMENT_BYTES..bytes.len()).step_by(SEGMENT_BYTES).chain([bytes.len()]);
    group.bench_function("by hand", |bencher| {
        let mut decoder = Decoder::default();
        bencher.iter(|| {
            let found = arrivals().map(|arrived| by_hand(&mut decoder, &bytes[..arrived])).sum::<usize>();
            assert_eq!(found, 1);
        });
    });
    group.bench_function("redis-protocol", |bencher| {
        bencher.iter(|| assert_eq!(arrivals().map(|arrived| by_redis_protocol(&bytes[..arrived])).sum::<usize>(), 1));
    });
    group.finish();
}

/// Decodes 50,000 arrays in each other, in the child process.
fn decode_nested(by: &str) {
    let bytes = "*1\r\n".repeat(50_000).into_bytes();
    match by {
        "redis-protocol" => println!("{:?}", resp2::decode::decode_range(&bytes).map(|frame| frame.is_some())),
        _ => println!("{:?}", Decoder::default().decode(&bytes, &Limits::default())),
    }
}

/// What becomes of a process that decodes them.
fn nested() {
    let Ok(program) = std::env::current_exe() else { return };
    for by in ["by hand", "redis-protocol"] {
        let child = Command::new(&program).env(CHILD, by).stderr(Stdio::null()).output();
        match child {
            Ok(child) if child.status.success() => {
                println!("50,000 nested arrays, {by}: {}", String::from_utf8_lossy(&child.stdout).trim());
            }
            Ok(child) => println!("50,000 nested arrays, {by}: the process dies, {}", child.status),
            Err(error) => println!("50,000 nested arrays, {by}: not tried, {error}"),
        }
    }
}

fn main() {
    if let Ok(by) = std::env::var(CHILD) {
        return decode_nested(&by);
    }
    nested();
    let mut criterion = Criterion::default().configure_from_args();
    pipelines(&mut criterion);
    pieces(&mut criterion);
    criterion.final_summary();
}
