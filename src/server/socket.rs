//! A client's socket: TCP, or the Unix socket of `unixsocket`. Connections know no difference.

use crate::services::clients::Address;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket that was accepted, on its way to a worker's runtime.
#[derive(Debug)]
pub enum Incoming {
    Tcp(std::net::TcpStream),
    /// With the name that the socket was bound to: the other side has none.
    Unix(std::os::unix::net::UnixStream, Arc<str>),
}

impl Incoming {
    /// Who connected, and to what.
    pub fn addresses(&self) -> io::Result<(Address, Address)> {
        Ok(match self {
            Incoming::Tcp(stream) => (Address::Ip(stream.peer_addr()?), Address::Ip(stream.local_addr()?)),
            Incoming::Unix(_, path) => (Address::Unix(Arc::clone(path)), Address::Unix(Arc::clone(path))),
        })
    }

    pub fn descriptor(&self) -> RawFd {
        match self {
            Incoming::Tcp(stream) => stream.as_raw_fd(),
            Incoming::Unix(stream, _) => stream.as_raw_fd(),
        }
    }

    /// Sends what the socket takes at once, to a client that is not let in.
    pub fn say(self, text: &str) {
        let _ = match self {
            Incoming::Tcp(mut stream) => stream.write(text.as_bytes()),
            Incoming::Unix(mut stream, _) => stream.write(text.as_bytes()),
        };
    }
}

/// A socket on the runtime of its worker.
#[derive(Debug)]
pub enum Socket {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Socket {
    /// To be called on the runtime that the connection lives on.
    pub fn settle(incoming: Incoming) -> io::Result<Socket> {
        Ok(match incoming {
            Incoming::Tcp(stream) => Socket::Tcp(tokio::net::TcpStream::from_std(stream)?),
            Incoming::Unix(stream, _) => Socket::Unix(tokio::net::UnixStream::from_std(stream)?),
        })
    }

    /// Writes what the socket takes now.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.try_write(bytes),
            Socket::Unix(stream) => stream.try_write(bytes),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
