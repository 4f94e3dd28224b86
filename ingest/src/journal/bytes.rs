//! Numbers and words as bytes, little endian; every length is checked against what is there before it is believed.

use flow::{Error, Remedy, Result};

pub(super) fn put_u32(to: &mut Vec<u8>, value: u32) {
    to.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(to: &mut Vec<u8>, value: u64) {
    to.extend_from_slice(&value.to_le_bytes());
}

/// Length in four bytes, then the bytes.
pub(super) fn put_bytes(to: &mut Vec<u8>, value: &[u8]) {
    put_u32(to, value.len() as u32);
    to.extend_from_slice(value);
}

/// One byte that says whether a value follows.
pub(super) fn put_flag(to: &mut Vec<u8>, present: bool) {
    to.push(u8::from(present));
}

/// Reads from the front of a slice.
pub(super) struct Take<'a> {
    rest: &'a [u8],
}

impl<'a> Take<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((front, rest)) = self.rest.split_at_checked(length) else {
            return Err(Error::new(Remedy::Stop, format!("a journal frame wants {length} bytes more, {} are left", self.rest.len())));
        };
        self.rest = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.slice(N)?.try_into().expect("slice gives as many bytes as it was asked for"))
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()? as usize;
        self.slice(length)
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|e| Error::stop("a word in a journal frame", e))
    }

    pub(super) fn flag(&mut self) -> Result<bool> {
        Ok(self.u8()? != 0)
    }
}
