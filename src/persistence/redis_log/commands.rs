//! The commands in a file of Redis's log, one after the other. Memory is taken for what was read, not for what is claimed.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

/// Bytes of a line that announces something: longer ones are none.
const LINE_BYTES_MAX: u64 = 1024;
/// Bytes of a line of annotation.
const NOTE_BYTES_MAX: u64 = 64 * 1024;
/// Most words of one command, as a client may send.
const WORDS_MAX: u64 = i32::MAX as u64;

/// What comes next in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Its words; there is at least one.
    Command(Vec<Vec<u8>>),
    /// What stands behind a `#`.
    Note(Vec<u8>),
}

impl Item {
    /// The time of a `#TS:` note, in Unix seconds.
    pub fn time(&self) -> Option<u64> {
        match self {
            Item::Note(note) => std::str::from_utf8(note.strip_prefix(b"TS:")?).ok()?.parse().ok(),
            Item::Command(_) => None,
        }
    }
}

/// Why a file cannot be read further.
#[derive(Debug)]
pub struct CommandError {
    /// Where the command begins that was being read.
    pub offset: u64,
    pub fault: Fault,
}

#[derive(Debug)]
pub enum Fault {
    Io(io::Error),
    /// It ends in the middle of a command.
    Ended,
    /// What stands there is no command; this was expected.
    NoCommand(&'static str),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::Io(error) => write!(f, "it cannot be read: {error}")?,
            Fault::Ended => f.write_str("it ends in the middle of a command")?,
            Fault::NoCommand(expected) => write!(f, "what stands there is no command, {expected} was expected")?,
        }
        write!(f, ", at byte {}", self.offset)
    }
}

impl std::error::Error for CommandError {}

/// See the module.
#[derive(Debug)]
pub struct Commands<R> {
    input: BufReader<R>,
    offset: u64,
    /// Where the item under way begins.
    begin: u64,
}

impl<R: Read> Commands<R> {
    /// `offset`: where the input begins, in its file.
    pub fn new(input: R, offset: u64) -> Commands<R> {
        Commands { input: BufReader::with_capacity(256 * 1024, input), offset, begin: offset }
    }

    /// Bytes of the file that have been read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the item begins that was read last.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// The next item; `None` at the end, where nothing is missing.
    ///
    /// # Errors
    /// Where there is something else.
    pub fn next_item(&mut self) -> Result<Option<Item>, CommandError> {
        self.begin = self.offset;
        let first = match self.input.fill_buf() {
            Ok(bytes) => bytes.first().copied(),
            Err(error) => return Err(self.error(Fault::Io(error))),
        };
        match first {
            None => Ok(None),
            Some(b'#') => {
                let line = self.line(NOTE_BYTES_MAX)?;
                Ok(Some(Item::Note(line[1..].to_vec())))
            }
            Some(b'*') => self.command().map(Some),
            Some(_) => Err(self.error(Fault::NoCommand("'*'"))),
        }
    }

    fn command(&mut self) -> Result<Item, CommandError> {
        let count = self.number(b'*')?;
        if !(1..=WORDS_MAX).contains(&count) {
            return Err(self.error(Fault::NoCommand("a number of words")));
        }
        let mut words = Vec::new();
        for _ in 0..count {
            let length = self.number(b'$')?;
            let mut word = Vec::new();
            self.read(length, &mut word)?;
            let mut end = Vec::with_capacity(2);
            self.read(2, &mut end)?;
            if end != b"\r\n" {
                return Err(self.error(Fault::NoCommand("the end of a word")));
            }
            words.push(word);
        }
        Ok(Item::Command(words))
    }

    /// The number in a line that begins with this.
    fn number(&mut self, first: u8) -> Result<u64, CommandError> {
        let expected = if first == b'*' { "'*' and a number" } else { "'$' and a length" };
        let line = self.line(LINE_BYTES_MAX)?;
        let digits = line.strip_prefix(&[first]).and_then(|digits| std::str::from_utf8(digits).ok());
        let is_number = |digits: &&str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.filter(is_number).and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| self.error(Fault::NoCommand(expected)))
    }

    /// A line, without its end.
    fn line(&mut self, bytes_max: u64) -> Result<Vec<u8>, CommandError> {
        let mut line = Vec::new();
        let read = (&mut self.input).take(bytes_max).read_until(b'\n', &mut line);
        if let Err(error) = read {
            return Err(self.error(Fault::Io(error)));
        }
        self.offset += line.len() as u64;
        if line.pop() != Some(b'\n') {
            let is_long = line.len() as u64 + 1 >= bytes_max;
            return Err(self.error(if is_long { Fault::NoCommand("the end of a line") } else { Fault::Ended }));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(line)
    }

    fn read(&mut self, length: u64, into: &mut Vec<u8>) -> Result<(), CommandError> {
        let read = (&mut self.input).take(length).read_to_end(into).map_err(|error| self.error(Fault::Io(error)))?;
        self.offset += read as u64;
        if (read as u64) < length { Err(self.error(Fault::Ended)) } else { Ok(()) }
    }

    fn error(&self, fault: Fault) -> CommandError {
        CommandError { offset: self.begin, fault }
    }
}

/// Follows MULTI and EXEC: up to where a file can be used, for what stands between counts as a whole or not at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transaction {
    /// Where the MULTI stands that is open.
    pub open_at: Option<u64>,
}

impl Transaction {
    /// The next command, which stands at this offset.
    pub fn note(&mut self, words: &[Vec<u8>], at: u64) {
        let name = words.first().map(Vec::as_slice).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"multi") {
            self.open_at = Some(at);
        } else if name.eq_ignore_ascii_case(b"exec") {
            self.open_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<Item>, Result<u64, (u64, String)>) {
        let mut commands = Commands::new(bytes, 0);
        let mut items = Vec::new();
        loop {
            match commands.next_item() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => return (items, Ok(commands.offset())),
                Err(error) => return (items, Err((error.offset, error.to_string()))),
            }
        }
    }

    const TWO: &[u8] = b"#TS:1234\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n";

    #[test]
    fn commands_and_notes_are_read() {
        let (items, end) = read(TWO);
        assert_eq!(end, Ok(TWO.len() as u64));
        assert_eq!(items[0].time(), Some(1234));
        assert_eq!(items[1], Item::Command(vec![b"SELECT".to_vec(), b"0".to_vec()]));
        assert_eq!(items[2], Item::Command(vec![b"SET".to_vec(), b"k".to_vec(), Vec::new()]));
    }

    #[test]
    fn what_is_cut_off_ends_where_its_command_begins() {
        for cut in 0..TWO.len() {
            let whole = [0, 10, 33].into_iter().rev().find(|begin| *begin <= cut).unwrap_or(0);
            match read(&TWO[..cut]).1 {
                Ok(at) => assert_eq!(at, cut as u64),
                Err((at, text)) => {
                    assert_eq!(at, whole as u64, "cut at {cut}");
                    assert!(text.starts_with("it ends in the middle"), "{text}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let endless = [b"*1\r\n$".to_vec(), vec![b'1'; 2000]].concat();
        for bytes in
            [&b"SET k v\r\n"[..], b"*0\r\n", b"*-1\r\n", b"*x\r\n", b"*1\r\n+OK\r\n", b"*1\r\n$1\r\nabc\r\n", &endless]
        {
            let (items, end) = read(bytes);
            assert!(items.is_empty());
            assert!(
                end.expect_err("refused").1.starts_with("what stands there is no command"),
                "{}",
                bytes.escape_ascii()
            );
        }
        // A length that claims more than there is takes no memory.
        assert!(read(b"*2000000000\r\n$9223372036854775807\r\nabc").1.is_err());
    }
}
