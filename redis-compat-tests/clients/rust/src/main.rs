//! The `redis` crate against one node and against a cluster, as one of the stock clients of the client tests.
//!
//! `ADDRESSES` names the nodes. `MODE=single` runs the cases against the first one, `MODE=cases` against the cluster.
//! `MODE=work` says `working`, reads and writes until the standard input ends, while the caller moves slots, and then
//! reads back what was acknowledged. Prints `ok name` or `not ok name # why`, and `done` at the end.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterConnection, cluster_pipe};
use redis::{Commands, ConnectionLike, RedisError, RedisResult};

const THREADS: usize = 3;

type Outcome = Result<(), String>;
type Case<C> = (&'static str, fn(&mut C) -> Outcome);

fn text(error: RedisError) -> String {
    error.to_string().replace('\n', " ")
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: RedisResult<T>, wanted: &T) -> Outcome {
    match got {
        Ok(got) if got == *wanted => Ok(()),
        Ok(got) => Err(format!("{what}: {got:?}, not {wanted:?}")),
        Err(error) => Err(format!("{what}: {}", text(error))),
    }
}

fn strings<C: ConnectionLike>(client: &mut C) -> Outcome {
    for number in 0..300 {
        client.set::<_, _, ()>(format!("rs:s:{number}"), number).map_err(text)?;
    }
    for number in 0..300 {
        equal("GET", client.get(format!("rs:s:{number}")), &Some(number))?;
    }
    equal("GET of nothing", client.get("rs:none"), &None::<i64>)?;
    client.mset::<_, _, ()>(&[("{rs}a", 1), ("{rs}b", 2)]).map_err(text)?;
    equal("MGET", client.mget(&["{rs}a", "{rs}none", "{rs}b"]), &vec![Some(1), None, Some(2)])
}

fn counters<C: ConnectionLike>(client: &mut C) -> Outcome {
    client.del::<_, ()>("rs:c").map_err(text)?;
    (1..=100i64).try_for_each(|wanted| equal("INCR", client.incr("rs:c", 1), &wanted))
}

fn collections<C: ConnectionLike>(client: &mut C) -> Outcome {
    for key in ["rs:l", "rs:h", "rs:set", "rs:z"] {
        client.del::<_, ()>(key).map_err(text)?;
    }
    equal("RPUSH", client.rpush("rs:l", &["a", "b", "c"]), &3)?;
    equal("LRANGE", client.lrange("rs:l", 0, -1), &vec!["a".to_owned(), "b".to_owned(), "c".to_owned()])?;
    equal("HSET", client.hset("rs:h", "f", 1), &1)?;
    equal("HGETALL", client.hgetall("rs:h"), &HashMap::from([("f".to_owned(), 1)]))?;
    equal("SADD", client.sadd("rs:set", "m"), &1)?;
    equal("ZADD", client.zadd("rs:z", "m", 1.5), &1)?;
    equal("ZSCORE", client.zscore("rs:z", "m"), &1.5)
}

fn errors<C: ConnectionLike>(client: &mut C) -> Outcome {
    client.set::<_, _, ()>("rs:w", "text").map_err(text)?;
    match client.incr::<_, _, i64>("rs:w", 1) {
        Err(error) if error.to_string().contains("not an integer") => Ok(()),
        other => Err(format!("INCR of a text: {other:?}")),
    }
}

fn single_pipelines(client: &mut redis::Connection) -> Outcome {
    let mut pipe = redis::pipe();
    (0..1000).for_each(|number| _ = pipe.set(format!("rs:p:{number}"), number).ignore().get(format!("rs:p:{number}")));
    equal("pipeline", pipe.query(client), &(0..1000).collect::<Vec<i64>>())?;
    let mut atomic = redis::pipe();
    atomic.atomic().set("rs:t", 1).ignore().incr("rs:t", 1).get("rs:t");
    equal("transaction", atomic.query(client), &(2, 2))
}

fn cluster_pipelines(client: &mut ClusterConnection) -> Outcome {
    let mut pipe = cluster_pipe();
    (0..1000).for_each(|number| _ = pipe.set(format!("rs:p:{number}"), number).ignore().get(format!("rs:p:{number}")));
    equal("pipeline", pipe.query(client), &(0..1000).collect::<Vec<i64>>())
}

/// Keys all over the slots, counted on all nodes.
fn spread(client: &mut ClusterConnection) -> Outcome {
    for number in 0..500 {
        client.set::<_, _, ()>(format!("rs:spread:{number}"), number).map_err(text)?;
    }
    // Asked of every primary, and added up by the client.
    match redis::cmd("DBSIZE").query::<u64>(client) {
        Ok(total) if total >= 500 => Ok(()),
        other => Err(format!("DBSIZE over all nodes: {other:?}")),
    }
}

fn run<C>(cases: &[Case<C>], mut client: C) {
    for (name, case) in cases {
        report(name, case(&mut client));
    }
}

fn report(name: &str, outcome: Outcome) {
    match outcome {
        Ok(()) => println!("ok {name}"),
        Err(why) => println!("not ok {name} # {why}"),
    }
}

/// Counters and hashes of one thread, whose every reply is known beforehand, until told to stop.
fn keep_working(
    client: &ClusterClient,
    thread: usize,
    stop: &AtomicBool,
    counts: &Mutex<HashMap<String, i64>>,
) -> Outcome {
    let mut connection = client.get_connection().map_err(text)?;
    for turn in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("rs:work:{thread}:{}", turn % 200);
        let wanted = {
            let mut counts = counts.lock().map_err(|_| "another thread failed".to_owned())?;
            let count = counts.entry(key.clone()).or_default();
            *count += 1;
            *count
        };
        equal(&format!("INCR {key}"), connection.incr(&key, 1), &wanted)?;
        equal(&format!("HSET {key}"), connection.hset(format!("{{{key}}}h"), "f", wanted), &i64::from(wanted == 1))?;
        equal(&format!("GET {key}"), connection.get(&key), &Some(wanted))?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn work(client: ClusterClient) -> Outcome {
    let (client, stop) = (Arc::new(client), Arc::new(AtomicBool::new(false)));
    let counts = Arc::new(Mutex::new(HashMap::new()));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (client, stop, counts) = (client.clone(), stop.clone(), counts.clone());
            std::thread::spawn(move || keep_working(&client, thread, &stop, &counts))
        })
        .collect();
    println!("working");
    std::io::stdin().read_to_end(&mut Vec::new()).map_err(|error| error.to_string())?;
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked".to_owned())??;
    }
    let mut connection = client.get_connection().map_err(text)?;
    let counts = counts.lock().map_err(|_| "a thread panicked".to_owned())?;
    for (key, count) in counts.iter() {
        equal(&format!("in the end, GET {key}"), connection.get(key), &Some(*count))?;
        equal(&format!("in the end, HGET {key}"), connection.hget(format!("{{{key}}}h"), "f"), &Some(*count))?;
    }
    let total: i64 = counts.values().sum();
    if total > 100 { Ok(()) } else { Err(format!("only {total}")) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addresses = std::env::var("ADDRESSES")?;
    let urls: Vec<String> = addresses.split(',').map(|address| format!("redis://{address}/")).collect();
    let cluster = || ClusterClient::new(urls.clone());
    match std::env::var("MODE")?.as_str() {
        "single" => run(
            &[
                ("strings", strings),
                ("counters", counters),
                ("collections", collections),
                ("pipelines", single_pipelines),
                ("errors", errors),
            ],
            redis::Client::open(urls[0].as_str())?.get_connection()?,
        ),
        "work" => report("work while slots move", work(cluster()?)),
        _ => run(
            &[
                ("strings", strings),
                ("counters", counters),
                ("collections", collections),
                ("pipelines", cluster_pipelines),
                ("spread", spread),
                ("errors", errors),
            ],
            cluster()?.get_connection()?,
        ),
    }
    println!("done");
    Ok(())
}
