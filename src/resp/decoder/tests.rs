use super::*;
use proptest::prelude::*;

type Requests = Vec<Vec<Vec<u8>>>;

fn all(decoder: &mut Decoder, buffer: &[u8], limits: &Limits) -> Result<(Requests, usize), ProtocolError> {
    let mut requests = Vec::new();
    let mut start = 0;
    while let Some(used) = decoder.decode(&buffer[start..], limits)? {
        requests.push(decoder.arguments(decoder.decoded(), &buffer[start..]).from(0).map(<[u8]>::to_vec).collect());
        decoder.forget();
        start += used;
        if start == buffer.len() {
            break;
        }
    }
    Ok((requests, start))
}

fn check(input: &[u8], expected: &[&[&str]]) {
    let (requests, _) = all(&mut Decoder::default(), input, &Limits::default()).expect("a valid request");
    let expected: Vec<Vec<Vec<u8>>> =
        expected.iter().map(|request| request.iter().map(|a| a.as_bytes().to_vec()).collect()).collect();
    assert_eq!(requests, expected, "{:?}", String::from_utf8_lossy(input));
}

fn check_error(input: &[u8], limits: &Limits, text: &str) {
    let error = all(&mut Decoder::default(), input, limits).expect_err("a protocol error");
    assert_eq!(
        String::from_utf8_lossy(&error.text()),
        text,
        "{:?}",
        String::from_utf8_lossy(&input[..input.len().min(40)])
    );
}

#[test]
fn requests_of_both_forms() {
    check(b"*1\r\n$4\r\nPING\r\n", &[&["PING"]]);
    check(b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n", &[&["GET", ""], &["PING"]]);
    check(b"PING\r\n", &[&["PING"]]);
    check(b"SET  k \"a b\\x41\\n\" 'it\\'s'\n", &[&["SET", "k", "a bA\n", "it's"]]);
    check(b"\r\n*0\r\n*-1\r\nPING\r\n", &[&[], &[], &[], &["PING"]]);
}

#[test]
fn errors_have_the_words_of_redis() {
    let limits = Limits::default();
    check_error(b"*x\r\n", &limits, "invalid multibulk length");
    check_error(b"*2147483648\r\n", &limits, "invalid multibulk length");
    check_error(b"*01\r\n", &limits, "invalid multibulk length");
    check_error(b"*1\r\n:4\r\n", &limits, "expected '$', got ':'");
    check_error(b"*1\r\n*1\r\n", &limits, "expected '$', got '*'");
    check_error(b"*1\r\n$-1\r\n", &limits, "invalid bulk length");
    check_error(b"*1\r\n$536870913\r\n", &limits, "invalid bulk length");
    check_error(b"GET \"x\r\n", &limits, "unbalanced quotes in request");
    check_error(b"GET \"x\"y\r\n", &limits, "unbalanced quotes in request");
    check_error(&vec![b'a'; INLINE_BYTES_MAX + 1], &limits, "too big inline request");
    check_error(&[b"*".as_slice(), &vec![b'1'; INLINE_BYTES_MAX + 1]].concat(), &limits, "too big mbulk count string");
    check_error(
        &[b"*1\r\n$".as_slice(), &vec![b'1'; INLINE_BYTES_MAX + 1]].concat(),
        &limits,
        "too big bulk count string",
    );
    let stranger = Limits { unauthenticated: true, ..limits };
    check_error(b"*11\r\n", &stranger, "unauthenticated multibulk length");
    check_error(b"*1\r\n$16385\r\n", &stranger, "unauthenticated bulk length");
}

#[test]
fn an_announced_count_allocates_nothing() {
    let mut decoder = Decoder::default();
    assert_eq!(decoder.decode(b"*1048576\r\n", &Limits::default()), Ok(None));
    assert!(decoder.memory_bytes() < 1024);
}

#[test]
fn a_large_request_survives_shrinking_between_its_pieces() {
    let mut wire = b"*3001\r\n".to_vec();
    for _ in 0..3001 {
        wire.extend_from_slice(b"$1\r\nk\r\n");
    }
    let mut decoder = Decoder::default();
    for end in (1000..wire.len()).step_by(1000) {
        assert_eq!(decoder.decode(&wire[..end], &Limits::default()), Ok(None));
        decoder.forget();
        decoder.shrink();
    }
    assert_eq!(decoder.decode(&wire, &Limits::default()), Ok(Some(wire.len())));
    assert_eq!(decoder.arguments(decoder.decoded(), &wire).len(), 3001);
}

proptest! {
    /// However the bytes are cut, the same requests come out.
    #[test]
    fn any_cut_gives_the_same_requests(
        requests in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6), 1..6),
        cuts in prop::collection::vec(1usize..30, 1..40),
    ) {
        let mut wire = Vec::new();
        for request in &requests {
            wire.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
            for argument in request {
                wire.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
                wire.extend_from_slice(argument);
                wire.extend_from_slice(b"\r\n");
            }
        }
        let mut decoder = Decoder::default();
        let (mut seen, mut start, mut end) = (Vec::new(), 0, 0);
        for cut in cuts.iter().cycle() {
            end = (end + cut).min(wire.len());
            while let Some(used) = decoder.decode(&wire[start..end], &Limits::default()).expect("valid") {
                seen.push(decoder.arguments(decoder.decoded(), &wire[start..end]).from(0).map(<[u8]>::to_vec).collect::<Vec<_>>());
                start += used;
            }
            if end == wire.len() {
                break;
            }
        }
        prop_assert_eq!(seen, requests);
    }

    /// No bytes make it panic, and an error or a wait is the only other answer.
    #[test]
    fn any_bytes_are_safe(input in prop::collection::vec(any::<u8>(), 0..200), stars in any::<bool>()) {
        let mut input = input;
        if stars {
            input.insert(0, b'*');
        }
        let _ = all(&mut Decoder::default(), &input, &Limits::default());
    }
}
