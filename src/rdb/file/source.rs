//! A window over a file that is being read: the record under way lies in it as a whole.
//!
//! It grows by what has been read, never by what a length claims.

use super::{Fault, ReadError};
use crate::rdb::checksum::Sum;
use crate::rdb::length::{Form, Head};
use crate::rdb::{Damaged, Reader};
use std::io::Read;

/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;
/// Bytes of the longest head of a string.
const HEAD_BYTES_MAX: usize = 9;

#[derive(Debug)]
pub(super) struct Source<R> {
    input: R,
    window: Vec<u8>,
    /// The next byte, in the window.
    at: usize,
    /// Where the window begins, in the file.
    offset: u64,
    /// Of what is before the window.
    sum: Sum,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R) -> Source<R> {
        Source { input, window: Vec::new(), at: 0, offset: 0, sum: Sum::default() }
    }

    /// Bytes of the file that have been passed.
    pub(super) fn offset(&self) -> u64 {
        self.offset + self.at as u64
    }

    /// The next byte's place in the window: places are good until [`Source::forget`].
    pub(super) fn place(&self) -> usize {
        self.at
    }

    /// Bytes that have been passed and not forgotten, from a place to another.
    pub(super) fn between(&self, from: usize, to: usize) -> &[u8] {
        &self.window[from..to]
    }

    /// What has been passed will not be asked for again.
    pub(super) fn forget(&mut self) {
        if self.at >= CHUNK {
            self.sum.add(&self.window[..self.at]);
            self.window.drain(..self.at);
            self.offset += self.at as u64;
            self.at = 0;
            // A great value has made room that no other needs.
            self.window.shrink_to(4 * CHUNK);
        }
    }

    /// The checksum of all that has been passed.
    pub(super) fn checksum(&self) -> u64 {
        let mut sum = self.sum.clone();
        sum.add(&self.window[..self.at]);
        sum.finish()
    }

    pub(super) fn error(&self, fault: Fault) -> ReadError {
        ReadError { offset: self.offset(), fault }
    }

    /// Reads until there are so many bytes ahead, or no more.
    fn fill(&mut self, count: usize) -> Result<(), ReadError> {
        while self.window.len() - self.at < count {
            let filled = self.window.len();
            self.window.resize(filled + CHUNK, 0);
            let read = self.input.read(&mut self.window[filled..]);
            self.window.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => break,
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(self.error(Fault::Io(error)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Passes so many bytes.
    pub(super) fn pass(&mut self, count: u64) -> Result<(), ReadError> {
        let count = usize::try_from(count).map_err(|_| self.error(Fault::Damaged))?;
        self.fill(count)?;
        if self.window.len() - self.at < count {
            return Err(self.error(Fault::Ended));
        }
        self.at += count;
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        self.pass(N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.window[self.at - N..self.at]);
        Ok(array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ReadError> {
        Ok(self.array::<1>()?[0])
    }

    fn head(&mut self) -> Result<Head, ReadError> {
        self.fill(HEAD_BYTES_MAX)?;
        let ahead = &self.window[self.at..];
        let mut reader = Reader::new(ahead);
        let head = reader
            .head()
            .map_err(|Damaged| self.error(if ahead.len() < HEAD_BYTES_MAX { Fault::Ended } else { Fault::Damaged }))?;
        self.at += ahead.len() - reader.rest().len();
        Ok(head)
    }

    pub(super) fn length(&mut self) -> Result<u64, ReadError> {
        let place = self.at;
        match self.head()? {
            Head::Length(length) => Ok(length),
            Head::Form(_) => {
                self.at = place;
                Err(self.error(Fault::Damaged))
            }
        }
    }

    /// Passes a string, in whichever form.
    pub(super) fn pass_string(&mut self) -> Result<(), ReadError> {
        let count = match self.head()? {
            Head::Length(length) => length,
            Head::Form(Form::Integer8) => 1,
            Head::Form(Form::Integer16) => 2,
            Head::Form(Form::Integer32) => 4,
            Head::Form(Form::Compressed) => {
                let compressed = self.length()?;
                self.length()?;
                compressed
            }
        };
        self.pass(count)
    }
}
