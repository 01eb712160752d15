//! A request's arguments: slices of the read buffer, never copied.

/// Where one argument lies in the buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Span {
    /// The bytes there.
    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..][..self.len as usize]
    }
}

/// The arguments of one request, the command's name first.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    buffer: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// Arguments that lie in `buffer` at `spans`.
    pub fn new(buffer: &'a [u8], spans: &'a [Span]) -> Self {
        Self { buffer, spans }
    }

    /// How many there are, the command's name included.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`; panics beyond the end, which arity rules out for a handler.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.spans[index].of(self.buffer)
    }

    /// The argument at `index`, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        (index < self.spans.len()).then(|| self.at(index))
    }

    /// The arguments from `count` on.
    pub fn skip(&self, count: usize) -> Args<'a> {
        Args { buffer: self.buffer, spans: &self.spans[count.min(self.spans.len())..] }
    }

    /// What lies in the buffer from the beginning of argument `index` to the end of the last, and where each argument
    /// from there on lies; nothing if there is none.
    #[inline]
    pub fn behind(&self, index: usize) -> (&'a [u8], &'a [Span]) {
        let spans = self.spans.get(index..).unwrap_or_default();
        match (spans.first(), spans.last()) {
            // Words of an inline request lie in their order too.
            (Some(first), Some(last)) => {
                (&self.buffer[first.start as usize..(last.start + last.len) as usize], spans)
            }
            _ => (&[], &[]),
        }
    }

    /// The arguments before `count`.
    pub fn take(&self, count: usize) -> Args<'a> {
        Args { buffer: self.buffer, spans: &self.spans[..count.min(self.spans.len())] }
    }

    /// All arguments in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + use<'a> {
        let (buffer, spans) = (self.buffer, self.spans);
        spans.iter().map(move |span| span.of(buffer))
    }

    /// Whether the argument at `index` is the keyword `word`, in any case.
    #[inline]
    pub fn is(&self, index: usize, word: &str) -> bool {
        // As it is written in documentation it is compared as a whole; letter by letter only otherwise.
        self.get(index).is_some_and(|argument| {
            argument == word.as_bytes() || argument.eq_ignore_ascii_case(word.as_bytes())
        })
    }

    /// A copy that outlives the read buffer.
    pub fn to_owned(&self) -> OwnedArgs {
        OwnedArgs::from_slices(self.iter())
    }
}

impl std::ops::Index<usize> for Args<'_> {
    type Output = [u8];

    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        self.at(index)
    }
}

/// Arguments with their bytes: what a queued or a blocked command keeps.
#[derive(Debug, Clone, Default)]
pub struct OwnedArgs {
    buffer: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedArgs {
    /// Copies the slices into one buffer.
    pub fn from_slices<'a>(slices: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let mut owned = Self {
            buffer: Vec::with_capacity(slices.clone().map(<[u8]>::len).sum()),
            spans: Vec::with_capacity(slices.size_hint().0),
        };
        for slice in slices {
            owned.spans.push(Span { start: owned.buffer.len() as u32, len: slice.len() as u32 });
            owned.buffer.extend_from_slice(slice);
        }
        owned
    }

    /// The arguments, borrowed.
    pub fn as_args(&self) -> Args<'_> {
        Args::new(&self.buffer, &self.spans)
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.buffer.capacity() + self.spans.capacity() * size_of::<Span>()
    }
}
