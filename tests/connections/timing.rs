//! How long commands take: INFO commandstats, LATENCY HISTOGRAM and the slow log, also of commands that are always fast.

use super::server::{Client, Server, encoded};

/// A field of a command's line in INFO commandstats.
fn figure(client: &mut Client, command: &str, name: &str) -> f64 {
    let text = client.ask("INFO commandstats");
    let line = text.split(' ').find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:"))).expect("its line");
    let value = line.split(',').find_map(|field| field.strip_prefix(&format!("{name}="))).expect("its field");
    value.parse().expect("a number")
}

#[test]
fn fast_commands_deep_in_a_pipeline_have_times() {
    const DEPTH: usize = 128;
    const ROUNDS: usize = 547;
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("SET key value"), "+OK");
    let batch = encoded(&["GET key"; DEPTH]);
    for _ in 0..ROUNDS {
        client.send_bytes(&batch);
        (0..DEPTH).for_each(|_| assert_eq!(client.receive(), "$5 value"));
    }
    let calls = (DEPTH * ROUNDS) as f64;
    assert_eq!(figure(&mut client, "get", "calls"), calls);
    // From a tenth of a microsecond to a tenth of a millisecond: the machine may be busy, but not so busy.
    let (total, each) = (figure(&mut client, "get", "usec"), figure(&mut client, "get", "usec_per_call"));
    assert!((0.02..100.0).contains(&each), "{each}");
    assert!((total / calls - each).abs() < 0.01, "{total} of {calls} are not {each}");
    // The histogram is of all calls too, but for those that the next measured one stands for.
    let histogram = client.ask("LATENCY HISTOGRAM get");
    let counted = histogram.split("$5 calls :").nth(1).and_then(|rest| rest.split(' ').next()).expect("calls");
    let counted: f64 = counted.parse().expect("a number");
    assert!((calls - 31.0..=calls).contains(&counted), "{histogram}");
    assert!(client.ask("INFO latencystats").contains("latency_percentiles_usec_get:p50="));
    assert_eq!(client.ask("CONFIG RESETSTAT"), "+OK");
    assert_eq!(client.ask("GET key"), "$5 value");
    assert_eq!(figure(&mut client, "get", "calls"), 1.0);
    assert!(figure(&mut client, "get", "usec") < 100_000.0, "one call stands for none before it");
}

#[test]
fn the_slow_log_has_fast_commands_from_the_request_that_asks_for_them() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut requests = vec!["GET before", "CONFIG SET slowlog-log-slower-than 0"];
    requests.extend(["GET key"; 20]);
    requests.extend(["CONFIG SET slowlog-log-slower-than -1", "GET behind"]);
    client.send(&requests);
    requests.iter().for_each(|_| drop(client.receive()));
    let log = client.ask("SLOWLOG GET -1");
    assert_eq!(log.matches("$3 GET $3 key").count(), 20, "{log}");
    assert!(!log.contains("before") && !log.contains("behind"), "{log}");
}

#[test]
fn a_fast_command_with_a_large_reply_deep_in_a_pipeline_is_found_slow() {
    const BYTES: usize = 64 << 20;
    let server = Server::start(&["--slowlog-log-slower-than", "1000", "--client-output-buffer-limit", "normal 0 0 0"]);
    let mut client = server.client();
    client.send(&[&format!("SET large {}", "x".repeat(BYTES)), "SET small value"]);
    assert_eq!(client.receive(), "+OK");
    assert_eq!(client.receive(), "+OK");
    // Past the calls that are all measured, and not where one of 31 is.
    client.send(&["GET small"; 96]);
    (0..96).for_each(|_| assert_eq!(client.receive(), "$5 value"));
    assert_eq!(client.ask("SLOWLOG RESET"), "+OK");
    let mut requests = ["GET small"; 20];
    requests[10] = "GET large";
    client.send(&requests);
    for request in requests {
        assert_eq!(client.receive().len(), if request == "GET large" { BYTES + 10 } else { 8 });
    }
    let log = client.ask("SLOWLOG GET -1");
    assert!(log.contains("$3 GET $5 large"), "{log}");
}
