//! The arguments of a request: byte strings that lie in somebody else's buffer.

/// Where an argument lies in the buffer of its request. Requests are limited to 1 GB, so 32 bits reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

/// The arguments of one request, the command's name first. Borrowed, cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Arguments<'a> {
    /// Arguments that lie at `spans` of `bytes`; every span must be inside.
    pub fn new(bytes: &'a [u8], spans: &'a [Span]) -> Arguments<'a> {
        Arguments { bytes, spans }
    }

    /// How many there are, with the command's name.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`; 0 is the command's name.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let span = self.spans.get(index)?;
        self.bytes.get(span.start as usize..span.end as usize)
    }

    /// The argument at `index`. For positions that the command's arity has already vouched for: empty where there is none.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// All of them from `start` on.
    pub fn from(self, start: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        let spans = self.spans.get(start..).unwrap_or_default();
        spans.iter().map(move |span| &self.bytes[span.start as usize..span.end as usize])
    }

    /// These arguments without the first `count`: how a subcommand sees its own.
    pub fn skip(self, count: usize) -> Arguments<'a> {
        Arguments { bytes: self.bytes, spans: self.spans.get(count..).unwrap_or_default() }
    }

    /// The bytes of the request as clients send it: `*2 $3 GET $3 key`, each word and each argument with CR LF.
    pub fn encoded_bytes(&self) -> usize {
        let head = |number: usize| number.checked_ilog10().unwrap_or(0) as usize + 4;
        head(self.len()) + self.from(0).map(|argument| head(argument.len()) + argument.len() + 2).sum::<usize>()
    }

    /// The bytes that the arguments hold together.
    pub fn total_bytes(&self) -> usize {
        self.spans.iter().map(|span| (span.end - span.start) as usize).sum()
    }

    /// A copy that owns its bytes, for a request that is kept: queued in MULTI, forwarded, logged.
    pub fn to_owned(self) -> OwnedArguments {
        let mut bytes = Vec::with_capacity(self.total_bytes());
        let spans = self
            .from(0)
            .map(|argument| {
                let start = bytes.len() as u32;
                bytes.extend_from_slice(argument);
                Span { start, end: bytes.len() as u32 }
            })
            .collect();
        OwnedArguments { bytes, spans }
    }
}

/// Arguments that own their bytes.
#[derive(Clone, Debug, Default)]
pub struct OwnedArguments {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedArguments {
    /// Appends an argument.
    pub fn push(&mut self, argument: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(argument);
        self.spans.push(Span { start, end: self.bytes.len() as u32 });
    }

    /// The same arguments, borrowed.
    pub fn borrow(&self) -> Arguments<'_> {
        Arguments { bytes: &self.bytes, spans: &self.spans }
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }
}

impl<'a> FromIterator<&'a [u8]> for OwnedArguments {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(arguments: I) -> OwnedArguments {
        let mut owned = OwnedArguments::default();
        for argument in arguments {
            owned.push(argument);
        }
        owned
    }
}
