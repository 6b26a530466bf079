//! A request on its way in, over HTTP or SCGI: what was read of it and what is still to come.
//!
//! It takes what is there and says until when more is to be waited for, but does not wait itself: that is for whoever
//! drives it.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::body::{Collector, Pace};
use super::buffers::Buffers;
use super::load::{Cargo, Errand, Load};
use super::patience::{Patience, Waited};
use super::stream::Stream;
use super::wire::{Page, Pen};
use crate::gateway::http1::chunked::{Decoder, Piece};
use crate::gateway::http1::{self, CONTINUE, Ends, Exchange, Framing, Head, HeadScanner};
use crate::gateway::scgi::HeadReader;
use crate::gateway::{GatewayError, Limits};
use crate::message::{Body, MetaVariables};

/// What a phase is called between processes.
const HTTP_HEAD: u64 = 0;
const SCGI_HEAD: u64 = 1;
const BODY: u64 = 2;
const OVER: u64 = 3;

/// How often it reads before it lets others have their turn.
const READS: u32 = 64;

/// A request on its way in. What was read and is not used up is its caller's, who has one place for it for all requests
/// of a connection.
#[derive(Debug)]
pub(crate) struct Reception {
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Head {
        format: Format,
        deadline: Instant,
    },
    Body(Box<Content>),
    /// It was handed out, or refused.
    Over,
}

/// How the end of a head is found.
#[derive(Debug)]
enum Format {
    Http(HeadScanner),
    /// With how much of it was read by now.
    Scgi(HeadReader, usize),
}

/// A message-body on its way in, and the head before it.
#[derive(Debug)]
struct Content {
    head: Head,
    /// The client waits for [`CONTINUE`].
    owes_continue: bool,
    collector: Collector,
    decoder: Decoder,
    pace: Pace,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Step {
    /// It is [complete](Reception::finish).
    Complete,
    /// More is to come, before this time.
    Wait(Instant),
    /// Perhaps more is there already.
    Again,
    Unserved(Unserved),
}

/// A request that is complete.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) meta: MetaVariables,
    pub(super) body: Body,
    pub(super) exchange: Exchange,
    /// When its head was there.
    pub(super) since: Instant,
}

/// A request that was not read.
#[derive(Debug)]
pub(super) enum Unserved {
    Refused(Refusal),
    /// Its client went, or never said a word.
    Gone,
    /// Somebody else goes on with it.
    HandedOver,
}

/// Why a request is refused, and what is known of it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: GatewayError,
    pub(super) exchange: Exchange,
    /// Its head, where that could be read, and when it was there.
    pub(super) head: Option<(MetaVariables, Instant)>,
}

impl Refusal {
    /// Of a request of which nothing is known.
    fn broken(error: GatewayError) -> Unserved {
        Unserved::Refused(Self { error, exchange: Exchange::BROKEN, head: None })
    }
}

impl Reception {
    pub(super) fn http(limits: &Limits) -> Self {
        Self::head(Format::Http(HeadScanner::default()), Instant::now() + limits.head_timeout)
    }

    pub(super) fn scgi(limits: &Limits) -> Self {
        Self::head(Format::Scgi(HeadReader::new(limits), 0), Instant::now() + limits.head_timeout)
    }

    fn head(format: Format, deadline: Instant) -> Self {
        Self { phase: Phase::Head { format, deadline } }
    }

    /// Takes what is in `pending` and what has arrived, which goes through `input`. What belongs to no request, or to the
    /// next one, is left in `pending`.
    pub(super) fn advance(
        &mut self,
        stream: &Stream,
        limits: &Limits,
        input: &mut [u8],
        pending: &mut Vec<u8>,
    ) -> Step {
        self.try_advance(stream, limits, input, pending).unwrap_or_else(Step::Unserved)
    }

    fn try_advance(
        &mut self,
        stream: &Stream,
        limits: &Limits,
        input: &mut [u8],
        pending: &mut Vec<u8>,
    ) -> Result<Step, Unserved> {
        for _ in 0..READS {
            if self.take(stream, limits, pending)? {
                return Ok(Step::Complete);
            }
            match stream.read_now(input) {
                Ok(0) => return Err(self.cut_short(pending)),
                Ok(n) => pending.extend_from_slice(&input[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.wait(limits, pending),
                Err(_) => return Err(Unserved::Gone),
            }
        }
        Ok(Step::Again)
    }

    /// What another process needs to go on with it; `pending` goes along.
    pub(super) fn load<'a>(&'a self, pending: &[u8]) -> Load<'a> {
        let mut pen = Pen::default();
        let mut descriptors = Vec::new();
        pen.bytes(pending);
        match &self.phase {
            Phase::Head { format, deadline } => {
                pen.number(if matches!(format, Format::Http(_)) { HTTP_HEAD } else { SCGI_HEAD });
                pen.number(micros(deadline.saturating_duration_since(Instant::now())));
            }
            Phase::Body(content) => {
                pen.number(BODY);
                let file = content.write(&mut pen);
                descriptors.extend(file.map(AsFd::as_fd));
            }
            Phase::Over => _ = pen.number(OVER),
        }
        Load { errand: Errand::Receive, state: pen.finish(), descriptors }
    }

    fn of_cargo(cargo: Cargo, limits: &Limits) -> Option<(Self, Vec<u8>)> {
        let mut page = Page(&cargo.state);
        let pending = page.bytes()?.to_vec();
        let phase = match page.number()? {
            // What is pending is all that there is of the head, and is looked at anew.
            kind @ (HTTP_HEAD | SCGI_HEAD) => {
                let deadline = Instant::now().checked_add(Duration::from_micros(page.number()?))?;
                let http = kind == HTTP_HEAD;
                let scanner = || Format::Http(HeadScanner::default());
                let format = if http { scanner() } else { Format::Scgi(HeadReader::new(limits), 0) };
                Phase::Head { format, deadline }
            }
            BODY => {
                let file = cargo.descriptors.into_iter().next().map(File::from);
                Phase::Body(Box::new(Content::read(&mut page, file, limits)?))
            }
            _ => return None,
        };
        Some((Self { phase }, pending))
    }

    /// Bytes of it that are in a file.
    pub(super) fn stored(&self) -> u64 {
        match &self.phase {
            Phase::Body(content) if content.collector.parts().1.is_some() => content.collector.length(),
            _ => 0,
        }
    }

    /// Refuses it for a reason that is not its own.
    pub(super) fn refuse(&mut self, error: GatewayError) -> Unserved {
        self.refused(error)
    }

    /// Uses up what is pending. Returns whether the request is complete.
    fn take(&mut self, stream: &Stream, limits: &Limits, pending: &mut Vec<u8>) -> Result<bool, Unserved> {
        if let Phase::Head { format, .. } = &mut self.phase {
            let Some((head, used)) = format.take(stream, limits, pending).map_err(Refusal::broken)? else {
                return Ok(false);
            };
            pending.drain(..used);
            self.phase = Phase::Body(Box::new(Content::new(head, limits)?));
        }
        let Phase::Body(content) = &mut self.phase else { return Err(Unserved::Gone) };
        content.invite(stream, pending)?;
        content.take(pending).map_err(|error| self.refused(error))
    }

    /// The request, which is complete.
    pub(super) fn finish(&mut self) -> Result<Received, Unserved> {
        let Phase::Body(content) = mem::replace(&mut self.phase, Phase::Over) else { return Err(Unserved::Gone) };
        content.finish()
    }

    /// The request is refused; its head, if it has one, goes with that.
    fn refused(&mut self, error: GatewayError) -> Unserved {
        match mem::replace(&mut self.phase, Phase::Over) {
            Phase::Body(content) => content.refused(error),
            _ => Refusal::broken(error),
        }
    }

    fn wait(&mut self, limits: &Limits, pending: &[u8]) -> Result<Step, Unserved> {
        let (deadline, what) = match &self.phase {
            Phase::Head { deadline, .. } => (*deadline, "request head"),
            Phase::Body(content) => (content.pace.deadline(limits, content.collector.length()), "message-body"),
            Phase::Over => return Err(Unserved::Gone),
        };
        if Instant::now() < deadline {
            return Ok(Step::Wait(deadline));
        }
        if self.is_silent(pending) {
            return Err(Unserved::Gone);
        }
        Err(self.refused(GatewayError::Timeout(what)))
    }

    /// The client has sent all that it is going to.
    fn cut_short(&mut self, pending: &[u8]) -> Unserved {
        if self.is_silent(pending) {
            return Unserved::Gone;
        }
        let is_head = matches!(self.phase, Phase::Head { .. });
        let what = if is_head { "connection ends within the head" } else { "connection ends within the message-body" };
        self.refused(GatewayError::Malformed(what))
    }

    /// Whether the client has never said a word.
    fn is_silent(&self, pending: &[u8]) -> bool {
        matches!(self.phase, Phase::Head { .. }) && pending.is_empty()
    }
}

/// A request that another process has begun to read, and perhaps has read whole.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(super) reception: Reception,
    /// What was read and is not used up.
    pub(super) pending: Vec<u8>,
}

impl Begun {
    /// `None` where it is not what it should be.
    pub(crate) fn of_cargo(cargo: Cargo, limits: &Limits) -> Option<Self> {
        Reception::of_cargo(cargo, limits).map(|(reception, pending)| Self { reception, pending })
    }

    /// Puts what is pending where it is when one begins oneself.
    pub(super) fn go_on(self, pending: &mut Vec<u8>) -> Reception {
        pending.clear();
        pending.extend_from_slice(&self.pending);
        self.reception
    }
}

/// Reads one request, of which some bytes may be in `buffers.pending`; what follows it is left there. Where the client
/// takes its time and there is somebody else to wait for it, that one goes on.
pub(super) fn receive(
    stream: &Stream,
    reception: &mut Reception,
    limits: &Limits,
    activity: &dyn Activity,
    buffers: &mut Buffers,
) -> Result<Received, Unserved> {
    let mut patience = Patience::new(activity);
    loop {
        match reception.advance(stream, limits, &mut buffers.input, &mut buffers.pending) {
            Step::Complete => return reception.finish(),
            Step::Again => {}
            Step::Unserved(unserved) => return Err(unserved),
            // It is asked again also where nothing came: then it is refused.
            Step::Wait(deadline) => match patience.wait(|until| stream.wait_readable(until.min(deadline))) {
                Waited::Ready => {}
                Waited::Slow if activity.hand_over(stream, &reception.load(&buffers.pending)) => {
                    buffers.pending.clear();
                    return Err(Unserved::HandedOver);
                }
                Waited::Slow => patience.refuse(),
                Waited::Alone => _ = stream.wait_readable(deadline),
            },
        }
    }
}

impl Format {
    /// The head, if it is complete, and how many bytes belong to it.
    fn take(
        &mut self,
        stream: &Stream,
        limits: &Limits,
        pending: &[u8],
    ) -> Result<Option<(Head, usize)>, GatewayError> {
        match self {
            Self::Http(scanner) => {
                let Some(length) = scanner.scan(pending, limits)? else { return Ok(None) };
                let ends = Ends { peer: stream.peer(), local: stream.local() };
                Ok(Some((http1::parse_head(&pending[..length], ends, limits)?, length)))
            }
            Self::Scgi(reader, read) => {
                let before = mem::replace(read, pending.len());
                let Some((head, used)) = reader.feed(&pending[before..])? else { return Ok(None) };
                let framing = Framing::Length(head.content_length);
                let head = Head { meta: head.meta, framing, expects_continue: false, exchange: Exchange::BROKEN };
                Ok(Some((head, before + used)))
            }
        }
    }
}

impl Content {
    fn new(head: Head, limits: &Limits) -> Result<Self, Unserved> {
        let pace = Pace::new();
        let announced = if let Framing::Length(length) = head.framing { Some(length) } else { None };
        match Collector::new(announced, limits.body) {
            Ok(collector) => {
                Ok(Self { owes_continue: head.expects_continue, head, collector, decoder: Decoder::new(), pace })
            }
            Err(error) => {
                let Head { meta, exchange, .. } = head;
                Err(Unserved::Refused(Refusal { error, exchange, head: Some((meta, pace.started())) }))
            }
        }
    }

    /// Tells a client to send that waits for it. Who has begun to send does not wait.
    fn invite(&mut self, stream: &Stream, pending: &[u8]) -> Result<(), Unserved> {
        self.owes_continue &= pending.is_empty();
        if self.owes_continue {
            match stream.write_now(CONTINUE) {
                Ok(n) if n == CONTINUE.len() => self.owes_continue = false,
                // It has not even read what it was sent before; so it does not wait for this.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return Err(Unserved::Gone),
            }
        }
        Ok(())
    }

    /// Takes what belongs to the message-body. Returns whether it is complete.
    fn take(&mut self, pending: &mut Vec<u8>) -> Result<bool, GatewayError> {
        let (used, is_complete) = match self.head.framing {
            Framing::Length(length) => take(pending, length, &mut self.collector)?,
            Framing::Chunked => take_chunks(pending, &mut self.decoder, &mut self.collector)?,
        };
        pending.drain(..used);
        Ok(is_complete)
    }

    fn write(&self, pen: &mut Pen) -> Option<&File> {
        let Self { head: Head { meta, framing, exchange, expects_continue }, owes_continue, .. } = self;
        pen.bytes(&meta.to_block());
        match framing {
            Framing::Length(length) => pen.flag(false).number(*length),
            Framing::Chunked => pen.flag(true).number(0),
        };
        pen.flag(exchange.is_11).flag(exchange.is_head).flag(exchange.keep_alive);
        pen.flag(*expects_continue).flag(*owes_continue);
        self.decoder.to_numbers().iter().for_each(|&number| _ = pen.number(number));
        let (memory, file) = self.collector.parts();
        pen.number(self.collector.length()).bytes(memory).flag(file.is_some());
        pen.number(micros(self.pace.started().elapsed()));
        file
    }

    fn read(from: &mut Page<'_>, file: Option<File>, limits: &Limits) -> Option<Self> {
        let meta = MetaVariables::from_block(from.bytes()?.to_vec())?;
        let framing = match (from.flag()?, from.number()?) {
            (true, _) => Framing::Chunked,
            (false, length) => Framing::Length(length),
        };
        let exchange = Exchange { is_11: from.flag()?, is_head: from.flag()?, keep_alive: from.flag()? };
        let (expects_continue, owes_continue) = (from.flag()?, from.flag()?);
        let mut numbers = [0; 5];
        for number in &mut numbers {
            *number = from.number()?;
        }
        let decoder = Decoder::from_numbers(numbers)?;
        let (length, memory, in_file) = (from.number()?, from.bytes()?, from.flag()?);
        if in_file != file.is_some() || matches!(framing, Framing::Length(all) if length > all) {
            return None;
        }
        let collector = Collector::of_parts(memory, file, length, limits.body);
        let pace = Pace::since(Duration::from_micros(from.number()?));
        let head = Head { meta, framing, expects_continue, exchange };
        Some(Self { head, owes_continue, collector, decoder, pace })
    }

    fn refused(self, error: GatewayError) -> Unserved {
        let head = Some((self.head.meta, self.pace.started()));
        Unserved::Refused(Refusal { error, exchange: self.head.exchange, head })
    }

    fn finish(self) -> Result<Received, Unserved> {
        let Self { head: Head { mut meta, framing, exchange, .. }, collector, pace, .. } = self;
        if framing == Framing::Chunked {
            // Decoded, it is a message-body like every other (RFC 9112 section 7.1.3).
            meta.remove("HTTP_TRANSFER_ENCODING");
            meta.remove("HTTP_TRAILER");
            meta.push("CONTENT_LENGTH", collector.length().to_string());
        }
        let since = pace.started();
        match collector.finish() {
            Ok(body) => Ok(Received { meta, body, exchange, since }),
            Err(error) => Err(Unserved::Refused(Refusal { error, exchange, head: Some((meta, since)) })),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Takes what belongs to a message-body of `length` bytes. Returns how much that was, and whether it is complete.
fn take(pending: &[u8], length: u64, collector: &mut Collector) -> Result<(usize, bool), GatewayError> {
    let missing = usize::try_from(length - collector.length()).unwrap_or(usize::MAX);
    let used = pending.len().min(missing);
    collector.push(&pending[..used])?;
    Ok((used, collector.length() == length))
}

/// Takes what belongs to a message-body in chunks.
fn take_chunks(
    pending: &[u8],
    decoder: &mut Decoder,
    collector: &mut Collector,
) -> Result<(usize, bool), GatewayError> {
    let mut used = 0;
    loop {
        let (n, piece) = decoder.next(&pending[used..])?;
        used += n;
        match piece {
            Piece::Data(data) => collector.push(data)?,
            Piece::More => return Ok((used, false)),
            Piece::Done => return Ok((used, true)),
        }
    }
}
