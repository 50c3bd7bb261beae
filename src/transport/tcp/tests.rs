use super::*;
use crate::base::clock::SystemClock;
use crate::base::identity::{ClusterId, Incarnation};
use crate::transport::{Blob, Refusal, Sender};
use tokio::io::AsyncWriteExt;
use tokio::runtime::{Builder, Handle, Runtime};

const LONG: Duration = Duration::from_secs(20);

/// Answers a slot message with its own bytes and says who asked.
struct Echo;

#[async_trait]
impl Handler for Echo {
    fn admit(&self, sender: &Sender) -> Result<(), Refusal> {
        if sender.node == NodeId(66) { Err(Refusal::NotMember) } else { Ok(()) }
    }

    async fn handle(&self, sender: &Sender, request: Request) -> Response {
        match request {
            Request::Copy(blob) | Request::Event(blob) => Response::Copy(blob),
            _ => Response::Failed(format!("{}", sender.node)),
        }
    }
}

fn transport(node: u128, secret: &str) -> TcpTransport {
    let here = Handle::current();
    transport_on(node, secret, here.clone(), here)
}

fn transport_on(node: u128, secret: &str, runtime: Handle, slots: Handle) -> TcpTransport {
    TcpTransport::new(TcpOptions {
        identity: LocalIdentity {
            node: NodeId(node),
            cluster: Some(ClusterId(1)),
            generation: 0,
            incarnation: Incarnation(1),
        },
        secret: LinkSecret::new(secret.as_bytes()),
        clock: Arc::new(SystemClock),
        nonces: system_nonces(),
        runtime,
        slots,
    })
}

fn listen(transport: &TcpTransport, node: u128) -> Peer {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = transport.listen(socket, Arc::new(Echo)).expect("listening");
    Peer { node: Some(NodeId(node)), address }
}

async fn echo(from: &TcpTransport, to: Peer, bytes: Vec<u8>) -> Result<Response, TransportError> {
    from.request(to, Purpose::Copies, Request::Copy(Blob(bytes)), LONG).await
}

#[tokio::test]
async fn requests_and_answers_meet_also_long_and_many() {
    let (a, b) = (transport(1, "secret"), transport(2, "secret"));
    let to = listen(&b, 2);
    let requests = (0..500usize).map(|i| {
        let bytes = vec![i as u8; i * 500];
        let a = &a;
        async move { assert_eq!(echo(a, to, bytes.clone()).await, Ok(Response::Copy(Blob(bytes)))) }
    });
    let mut tasks = Vec::new();
    for request in requests {
        tasks.push(Box::pin(request));
    }
    for task in tasks {
        task.await;
    }
    let long = vec![7; 15 << 20];
    assert_eq!(echo(&a, to, long.clone()).await, Ok(Response::Copy(Blob(long))));
    assert_eq!(echo(&a, to, vec![0; 17 << 20]).await, Err(TransportError::TooLarge));
    let (out, into) = (a.links(), b.links());
    assert_eq!((out.len(), into.len()), (1, 1));
    assert_eq!(out[0].connections, 1);
    assert!(out[0].messages_received > 500 && out[0].bytes_queued == 0, "{out:?}");
    assert_eq!(into[0].node, Some(NodeId(1)));
}

#[tokio::test]
async fn many_at_once_share_one_connection() {
    let (a, b) = (Arc::new(transport(1, "")), transport(2, ""));
    let to = listen(&b, 2);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..600usize {
        let a = Arc::clone(&a);
        tasks.spawn(async move {
            let blob = Blob(i.to_be_bytes().to_vec());
            let answer = a.request(to, Purpose::Control, Request::Event(blob.clone()), LONG).await;
            assert_eq!(answer, Ok(Response::Copy(blob)));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("answered");
    }
    assert_eq!(a.links()[0].connections, 1);
}

#[tokio::test]
async fn strangers_get_no_link() {
    let b = transport(2, "secret");
    let to = listen(&b, 2);
    let refused = |refusal| Err(TransportError::Refused(refusal));
    assert_eq!(echo(&transport(1, "other"), to, vec![]).await, refused(Refusal::BadProof));
    assert_eq!(echo(&transport(1, ""), to, vec![]).await, refused(Refusal::OneSecret));
    assert_eq!(echo(&transport(66, "secret"), to, vec![]).await, refused(Refusal::NotMember));
    let elsewhere = Peer { node: Some(NodeId(3)), ..to };
    assert_eq!(echo(&transport(1, "secret"), elsewhere, vec![]).await, refused(Refusal::OtherNode));
    let far = Peer { address: ([192, 0, 2, 1], 1).into(), ..to };
    assert_eq!(echo(&transport(1, ""), far, vec![]).await, refused(Refusal::NotLoopback));
    assert!(b.links().is_empty());
}

/// So a node that was started on a copy of a directory finds the one that it was copied from.
#[tokio::test]
async fn a_node_that_asks_itself_is_told_so() {
    let (a, b) = (transport(1, "secret"), transport(2, "secret"));
    let (itself, other) = (listen(&a, 1), listen(&b, 1));
    let copy = transport(1, "secret");
    for (to, refusal) in [(itself, Refusal::StaleIncarnation), (other, Refusal::OtherNode)] {
        let answer = copy.request(to, Purpose::Control, Request::Event(Blob(Vec::new())), LONG).await;
        assert_eq!(answer, Err(TransportError::Refused(refusal)));
    }
}

#[tokio::test]
async fn noise_closes_the_connection_and_nothing_else() {
    let (a, b) = (transport(1, ""), transport(2, ""));
    let to = listen(&b, 2);
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 1, 99], &[255; 64], &[0, 0, 0, 0]] {
        let mut stream = tokio::net::TcpStream::connect(to.address).await.expect("connected");
        stream.write_all(noise).await.expect("written");
        let mut rest = Vec::new();
        // A reset is as good as an end.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{rest:?}");
    }
    assert_eq!(echo(&a, to, vec![1]).await, Ok(Response::Copy(Blob(vec![1]))));
}

#[tokio::test]
async fn a_link_comes_back_after_its_peer_did() {
    let a = transport(1, "");
    let b = transport(2, "");
    let to = listen(&b, 2);
    assert!(echo(&a, to, vec![1]).await.is_ok());
    b.close();
    drop(b);
    let b = transport(2, "");
    let mut socket = std::net::TcpListener::bind(to.address);
    while socket.is_err() {
        tokio::task::yield_now().await;
        socket = std::net::TcpListener::bind(to.address);
    }
    b.listen(socket.expect("bound"), Arc::new(Echo)).expect("listening");
    let mut answer = echo(&a, to, vec![2]).await;
    while answer.is_err() {
        tokio::task::yield_now().await;
        answer = echo(&a, to, vec![2]).await;
    }
    assert_eq!(answer, Ok(Response::Copy(Blob(vec![2]))));
    assert_eq!(a.links()[0].connections, 2);
}

/// Says which life asks.
struct WhichLife;

#[async_trait]
impl Handler for WhichLife {
    async fn handle(&self, sender: &Sender, _: Request) -> Response {
        Response::Failed(sender.incarnation.0.to_string())
    }
}

/// A raft leader that has started again asks copies before it is registered: what it asks afterwards, it asks in its new life.
#[tokio::test]
async fn a_node_that_has_registered_asks_about_slots_in_its_new_life() {
    let (a, b) = (transport(1, ""), transport(2, ""));
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let to = Peer { node: Some(NodeId(2)), address: b.listen(socket, Arc::new(WhichLife)).expect("listening") };
    for life in [1, 1, 7, 8] {
        let identity = LocalIdentity { incarnation: Incarnation(life), ..a.identity() };
        if identity != a.identity() {
            a.set_identity(identity);
        }
        let answer = a.request(to, Purpose::Copies, Request::Copy(Blob(Vec::new())), LONG).await;
        assert_eq!(answer, Ok(Response::Failed(life.to_string())));
    }
}

/// A runtime whose only thread has this name.
fn thread(name: &str) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).thread_name(name).enable_all().build().expect("a runtime")
}

/// Says on which thread it is asked.
struct WhereAmI;

#[async_trait]
impl Handler for WhereAmI {
    async fn handle(&self, _: &Sender, _: Request) -> Response {
        Response::Failed(std::thread::current().name().unwrap_or_default().to_owned())
    }
}

#[test]
fn requests_about_slots_are_handled_on_a_thread_of_their_own() {
    let (control, slots) = (thread("control"), thread("slots"));
    let new = |node| transport_on(node, "", control.handle().clone(), slots.handle().clone());
    let (a, b) = (new(1), new(2));
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let to = Peer { node: Some(NodeId(2)), address: b.listen(socket, Arc::new(WhereAmI)).expect("listening") };
    let handled_on = |purpose, request| {
        let answer = thread("caller").block_on(a.request(to, purpose, request, LONG));
        let Ok(Response::Failed(name)) = answer else { panic!("{answer:?}") };
        name
    };
    for _ in 0..2 {
        assert_eq!(handled_on(Purpose::Copies, Request::Copy(Blob::default())), "slots");
        assert_eq!(handled_on(Purpose::Control, Request::Event(Blob::default())), "control");
    }
    // A node that ends takes its links with it.
    drop(slots);
    assert!(thread("caller").block_on(echo(&a, to, vec![1])).is_err());
    assert_eq!(handled_on(Purpose::Control, Request::Event(Blob::default())), "control");
}

/// The longest time for which a thread was held up, while another one asks over and over for long pieces of slots.
fn longest_hold(a: &TcpTransport, to: Peer, control: &Handle) -> Duration {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let watching = control.spawn(async move {
        const TURN: Duration = Duration::from_millis(1);
        let (mut longest, mut stopped) = (Duration::ZERO, stopped);
        while stopped.try_recv().is_err() {
            let began = std::time::Instant::now();
            tokio::time::sleep(TURN).await;
            longest = longest.max(began.elapsed().saturating_sub(TURN));
        }
        longest
    });
    let caller = thread("caller");
    for _ in 0..25 {
        caller.block_on(echo(a, to, vec![7; 8 << 20])).expect("an answer");
    }
    stop.send(()).expect("it watches");
    caller.block_on(watching).expect("it has watched")
}

/// A measure: `cargo test --release --lib -- --ignored --nocapture slots_hold`.
#[test]
#[ignore = "a measure, not a check"]
fn how_long_slots_hold_up_the_other_links() {
    let (control, slots) = (thread("control"), thread("slots"));
    for (name, of_slots) in [("together", control.handle()), ("apart", slots.handle())] {
        let new = |node| transport_on(node, "", control.handle().clone(), of_slots.clone());
        let (a, b) = (new(1), new(2));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = Peer { node: Some(NodeId(2)), address: b.listen(socket, Arc::new(Echo)).expect("listening") };
        println!("{name}: {:?} at most, in 200 MB there and back", longest_hold(&a, to, control.handle()));
    }
}
