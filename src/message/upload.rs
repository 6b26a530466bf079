//! The files of a form, kept where memory stays bounded.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

/// How much of a form's files is kept in memory, in bytes.
const IN_MEMORY: usize = 64 * 1024;

/// A file of a form (RFC 7578).
///
/// It reads (and seeks) like a file that was just opened. All files of a form share one place: memory up to 64 KiB,
/// from there on one temporary file that has no name and is gone with the last of them, so neither memory nor
/// descriptors grow with what a client sends.
pub struct Upload {
    name: String,
    file_name: String,
    content_type: Option<String>,
    cursor: Cursor,
}

impl Upload {
    /// The name of the form's field.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file's name **as the client sent it**. It may hold anything: slashes, `..`, control characters, nothing.
    /// Never make a path of it; [`safe_file_name`](Self::safe_file_name) is for that.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The file's name without directories (of Unix or Windows), control characters, characters that turn the writing
    /// direction, leading dots and surrounding white space, cut to 255 bytes; `None` where nothing is left.
    ///
    /// It names a file *in* a directory of your choice and nothing else. That it is unused there, and that its
    /// extension is harmless, is for the application to see.
    pub fn safe_file_name(&self) -> Option<String> {
        let base = self.file_name.rsplit(['/', '\\']).next().unwrap_or_default();
        let mut name: String = base
            .chars()
            // U+202A to U+202E and U+2066 to U+2069 make `gpj.exe` look like `exe.jpg`.
            .filter(|c| !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
            .collect();
        name.truncate(floor_char_boundary(&name, 255));
        let name = name.trim_start_matches(|c: char| c == '.' || c.is_whitespace()).trim_end();
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The Content-Type as the client sent it, if it sent one. It is a claim, not a finding.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.cursor.length
    }

    /// Another reader of the same contents, from their start. It may outlive this, for instance in
    /// [`Response::stream`](super::Response::stream).
    pub fn reader(&self) -> impl Read + Seek + Send + use<> {
        Cursor { at: 0, ..self.cursor.clone() }
    }
}

/// The last boundary of a character at or before `index`.
fn floor_char_boundary(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cursor.read(buffer)
    }
}

impl Seek for Upload {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.cursor.seek(position)
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("name", &self.name)
            .field("file_name", &self.file_name)
            .field("content_type", &self.content_type)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

enum Contents {
    Memory(Bytes),
    File(File),
}

/// A part of the contents, with a position of its own: reads name their offset, so readers never disturb each other.
#[derive(Clone)]
struct Cursor {
    contents: Arc<Contents>,
    start: u64,
    length: u64,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.at);
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        let from = self.start + self.at;
        let n = match &*self.contents {
            Contents::Memory(bytes) => {
                let from = from as usize;
                buffer[..most].copy_from_slice(&bytes[from..from + most]);
                most
            }
            Contents::File(file) => file.read_at(&mut buffer[..most], from)?,
        };
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let target = match position {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// Collects the files of a form while it is read.
#[derive(Default)]
pub(super) struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
    written: u64,
    heads: Vec<Head>,
}

struct Head {
    name: String,
    file_name: String,
    content_type: Option<String>,
    start: u64,
}

impl Spool {
    /// Begins a file.
    pub(super) fn begin(&mut self, name: String, file_name: String, content_type: Option<String>) {
        self.heads.push(Head { name, file_name, content_type, start: self.written });
    }

    /// Appends to the file that was begun last.
    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.file.is_none() && self.memory.len() + piece.len() > IN_MEMORY {
            let mut file = tempfile::tempfile()?;
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(piece)?,
            None => self.memory.extend_from_slice(piece),
        }
        self.written += piece.len() as u64;
        Ok(())
    }

    /// Forgets the file that was begun last if it has neither a name nor contents: browsers send that for a file
    /// input in which nothing was chosen.
    pub(super) fn end(&mut self) {
        self.heads.pop_if(|head| head.file_name.is_empty() && head.start == self.written);
    }

    pub(super) fn finish(self) -> Vec<Upload> {
        let contents = Arc::new(match self.file {
            Some(file) => Contents::File(file),
            None => Contents::Memory(self.memory.into()),
        });
        let mut end = self.written;
        let mut uploads: Vec<Upload> = self
            .heads
            .into_iter()
            .rev()
            .map(|Head { name, file_name, content_type, start }| {
                let cursor = Cursor { contents: Arc::clone(&contents), start, length: end - start, at: 0 };
                end = start;
                Upload { name, file_name, content_type, cursor }
            })
            .collect();
        uploads.reverse();
        uploads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uploads(contents: &[&[u8]]) -> Vec<Upload> {
        let mut spool = Spool::default();
        for content in contents {
            spool.begin("f".into(), "f.bin".into(), None);
            for piece in content.chunks(10_000) {
                spool.write(piece).unwrap();
            }
            spool.end();
        }
        spool.finish()
    }

    #[test]
    fn files_stay_apart_in_memory_and_on_disk() {
        for scale in [1, 1000, 30_000, IN_MEMORY] {
            let contents = [vec![1; scale], vec![], vec![2; scale * 2], vec![3; 1]];
            let mut all = uploads(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
            assert_eq!(all.len(), 4);
            for (upload, content) in all.iter_mut().zip(&contents) {
                assert_eq!(upload.size(), content.len() as u64);
                let mut read = Vec::new();
                upload.reader().read_to_end(&mut read).unwrap();
                assert_eq!(&read, content);
                read.clear();
                upload.read_to_end(&mut read).unwrap();
                assert_eq!(&read, content);
            }
            let last = &all[3];
            assert_eq!(matches!(*last.cursor.contents, Contents::File(_)), scale * 3 + 1 > IN_MEMORY);
        }
    }

    #[test]
    fn seeks_within_its_own_file() {
        for size in [10, 100_000] {
            let content: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut upload = uploads(&[b"before", &content, b"after"]).remove(1);
            assert_eq!(upload.seek(SeekFrom::End(-3)).unwrap(), size - 3);
            let mut read = Vec::new();
            upload.read_to_end(&mut read).unwrap();
            assert_eq!(read, &content[content.len() - 3..]);
            upload.seek(SeekFrom::Start(u64::MAX)).unwrap();
            assert_eq!(upload.read(&mut [0; 4]).unwrap(), 0);
            assert!(upload.seek(SeekFrom::Current(1)).is_err());
            assert!(upload.seek(SeekFrom::End(-(size.cast_signed()) - 1)).is_err());
            upload.rewind().unwrap();
            assert_eq!(io::copy(&mut upload, &mut io::sink()).unwrap(), size);
        }
    }

    #[test]
    fn a_safe_file_name_stays_in_its_directory() {
        let safe = |name: &str| {
            let mut upload = uploads(&[b""]).remove(0);
            upload.file_name = name.to_owned();
            upload.safe_file_name()
        };
        assert_eq!(safe("a b.txt").unwrap(), "a b.txt");
        assert_eq!(safe("../../etc/passwd").unwrap(), "passwd");
        assert_eq!(safe("C:\\docs\\x.doc").unwrap(), "x.doc");
        assert_eq!(safe("a\r\n\0b").unwrap(), "ab");
        assert_eq!(safe(".htaccess").unwrap(), "htaccess");
        assert_eq!(safe("\0. ./x"), Some("x".to_owned()));
        assert_eq!(safe("a\u{202e}gpj.exe").unwrap(), "agpj.exe");
        for name in ["", ".", "..", "a/", "a/..", "\u{7f}", " . . "] {
            assert_eq!(safe(name), None, "{name:?}");
        }
        let long = safe(&"é".repeat(300)).unwrap();
        assert_eq!(long.len(), 254);
    }
}
