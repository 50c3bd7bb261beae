//! A connection to another server that keys are sent to (MIGRATE): requests out, replies of one line in. Each step has
//! the same time; nothing is kept of a target but the bytes of one line.

use crate::resp::reply::{Protocol, ReplyWriter};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What is written in one step: as in Redis, so that a large value over a slow line has its time per part.
const WRITTEN_BYTES: usize = 64 * 1024;
/// The longest line that is a reply.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// Where it went wrong. What was sent may have been executed, unless it was the connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    Connecting,
    Writing,
    Reading,
}

/// A connected target.
#[derive(Debug)]
pub struct Target {
    stream: BufReader<TcpStream>,
    step: Duration,
}

impl Target {
    /// Connects; this and each further step may take so long.
    ///
    /// # Errors
    /// Where nobody answers there in time.
    pub async fn connect(host: &str, port: u16, step: Duration) -> Result<Target, TargetError> {
        let connected = timeout(step, TcpStream::connect((host, port))).await;
        let stream = connected.map_err(io::Error::from).flatten().map_err(|_| TargetError::Connecting)?;
        // It only saves time: without, everything arrives too.
        let _ = stream.set_nodelay(true);
        Ok(Target { stream: BufReader::new(stream), step })
    }

    /// Sends encoded requests.
    ///
    /// # Errors
    /// Where the target does not take them in time.
    pub async fn send(&mut self, requests: &[u8]) -> Result<(), TargetError> {
        for part in requests.chunks(WRITTEN_BYTES) {
            let written = timeout(self.step, self.stream.write_all(part)).await;
            written.map_err(io::Error::from).flatten().map_err(|_| TargetError::Writing)?;
        }
        Ok(())
    }

    /// The next reply: the text of an error, its code in front, where it is one.
    ///
    /// # Errors
    /// Where none comes in time, or what comes is not a reply of one line.
    pub async fn reply(&mut self) -> Result<Result<(), Vec<u8>>, TargetError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(LINE_BYTES_MAX);
        let read = timeout(self.step, limited.read_until(b'\n', &mut line)).await;
        read.map_err(io::Error::from).flatten().map_err(|_| TargetError::Reading)?;
        match line.strip_suffix(b"\r\n") {
            Some([b'-', text @ ..]) => Ok(Err(text.to_vec())),
            Some([b'+' | b':', ..]) => Ok(Ok(())),
            _ => Err(TargetError::Reading),
        }
    }
}

/// Appends a request.
pub fn encode(arguments: &[&[u8]], to: &mut Vec<u8>) {
    // Requests look the same in both versions of the protocol.
    let mut writer = ReplyWriter::new(to, Protocol::Resp2);
    writer.array(arguments.len());
    arguments.iter().for_each(|argument| writer.bulk(argument));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What the replies that a target sends are read as.
    fn check(sent: &[u8], expected: &[Result<Result<(), &str>, TargetError>]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let mut target = Target::connect("127.0.0.1", port, Duration::from_secs(20)).await.expect("connected");
            let (mut accepted, _) = listener.accept().await.expect("accepted");
            accepted.write_all(sent).await.expect("sent");
            drop(accepted);
            for expected in expected {
                let reply = target.reply().await;
                let expected = expected.map(|reply| reply.map_err(|text| text.as_bytes().to_vec()));
                assert_eq!(reply, expected, "{}", sent.escape_ascii());
            }
        });
    }

    #[test]
    fn replies_are_lines_and_nothing_else() {
        let reading = Err(TargetError::Reading);
        check(b"+OK\r\n-ERR no\r\n:1\r\n", &[Ok(Ok(())), Ok(Err("ERR no")), Ok(Ok(())), reading]);
        check(b"", &[reading]);
        check(b"+OK", &[reading]);
        check(b"$2\r\nab\r\n", &[reading]);
        check(&[b"+".as_slice(), &[b'x'; 40_000], b"\r\n"].concat(), &[reading]);
    }

    #[test]
    fn a_target_that_is_not_there_is_told_from_one_that_is_silent() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let mut target = Target::connect("127.0.0.1", port, Duration::from_millis(50)).await.expect("connected");
            assert_eq!(target.reply().await, Err(TargetError::Reading));
            drop(listener);
            let refused = Target::connect("127.0.0.1", port, Duration::from_secs(20)).await;
            assert_eq!(refused.err(), Some(TargetError::Connecting));
        });
    }
}
