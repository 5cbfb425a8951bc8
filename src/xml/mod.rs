//! Bytes to meaning and back: knows XML, not what XMPP features do with it.
//!
//! [`stream`] frames what a socket delivered (header, whole stanza, footer) with [`tokenizer`], [`stanza`] gives handlers a
//! view of a framed stanza, [`writer`] appends escaped XML, [`ns`] names every namespace once.

mod bytes;
mod checker;
pub mod ns;
pub mod stanza;
pub mod stream;
#[cfg(test)]
mod tests;
mod text;
pub mod tokenizer;
pub mod writer;

pub use stanza::{Element, Tree};
pub use stream::{Frame, Framer, Header, Kind, Next, XmlError, XmlLimits};
pub use text::attribute_value;
pub use writer::Writer;
