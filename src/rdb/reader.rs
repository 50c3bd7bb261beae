//! Reads what others have written, from a slice: nothing is taken that is not there.

use super::length::{FORM, Form, Head, LENGTH_32, LENGTH_64};
use super::{Damaged, lzf};
use crate::base::number::parse_double;
use std::borrow::Cow;

/// Bytes, from the next one on.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Whether there are no more.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// Where there are not so many.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next bytes, as many as fit in the array.
    ///
    /// # Errors
    /// Where there are not so many.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Damaged)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// The next byte.
    ///
    /// # Errors
    /// Where there is none.
    pub fn byte(&mut self) -> Result<u8, Damaged> {
        Ok(self.array::<1>()?[0])
    }

    /// What stands at the head of a string.
    ///
    /// # Errors
    /// Where there is no such thing.
    pub fn head(&mut self) -> Result<Head, Damaged> {
        let first = self.byte()?;
        let low = u64::from(first & 0x3f);
        Ok(Head::Length(match first {
            0..0x40 => low,
            0x40..0x80 => low << 8 | u64::from(self.byte()?),
            LENGTH_32 => u32::from_be_bytes(self.array()?).into(),
            LENGTH_64 => u64::from_be_bytes(self.array()?),
            FORM => return Ok(Head::Form(Form::Integer8)),
            0xc1 => return Ok(Head::Form(Form::Integer16)),
            0xc2 => return Ok(Head::Form(Form::Integer32)),
            0xc3 => return Ok(Head::Form(Form::Compressed)),
            _ => return Err(Damaged),
        }))
    }

    /// A length, or another number that is written like one.
    ///
    /// # Errors
    /// Where there is none.
    pub fn length(&mut self) -> Result<u64, Damaged> {
        match self.head()? {
            Head::Length(length) => Ok(length),
            Head::Form(_) => Err(Damaged),
        }
    }

    /// The length of something that lies in memory.
    fn size(&mut self) -> Result<usize, Damaged> {
        usize::try_from(self.length()?).map_err(|_| Damaged)
    }

    /// A string, in whichever form.
    ///
    /// # Errors
    /// Where there is none.
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, Damaged> {
        let integer = match self.head()? {
            Head::Length(length) => return self.take(usize::try_from(length).map_err(|_| Damaged)?).map(Cow::Borrowed),
            Head::Form(Form::Compressed) => {
                let (compressed, length) = (self.size()?, self.size()?);
                return lzf::decompress(self.take(compressed)?, length).map(Cow::Owned);
            }
            Head::Form(Form::Integer8) => i8::from_le_bytes(self.array()?).into(),
            Head::Form(Form::Integer16) => i16::from_le_bytes(self.array()?).into(),
            Head::Form(Form::Integer32) => i32::from_le_bytes(self.array()?),
        };
        Ok(Cow::Owned(integer.to_string().into_bytes()))
    }

    /// A number that is eight bytes, and not NaN.
    ///
    /// # Errors
    /// Where there is none.
    pub fn double(&mut self) -> Result<f64, Damaged> {
        let value = f64::from_le_bytes(self.array()?);
        if value.is_nan() { Err(Damaged) } else { Ok(value) }
    }

    /// A number that is text, with its length in one byte; the three greatest stand for what is no number, and for the
    /// infinite ones.
    ///
    /// # Errors
    /// Where there is none.
    pub fn double_text(&mut self) -> Result<f64, Damaged> {
        match self.byte()? {
            253 => Err(Damaged),
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            length => parse_double(self.take(usize::from(length))?).ok_or(Damaged),
        }
    }
}
