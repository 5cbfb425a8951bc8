//! What a client asks its archive for: the form of section 4.1 and the page of XEP-0059.

use super::super::prelude::*;
use super::{ArchiveId, ArchivePaging};
use crate::core::UtcTime;
use crate::core::archive::ArchiveFilter;
use crate::core::form::{Form, Input};
use crate::jid::Jid;

/// The fields with their types, in the order of the form.
pub(super) const FIELDS: [(Input, &str); 6] = [
    (Input::Jid, "with"),
    (Input::Text, "start"),
    (Input::Text, "end"),
    (Input::Text, "before-id"),
    (Input::Text, "after-id"),
    (Input::Any, "ids"),
];
pub(super) const UNFILLED: &[&str] = &[];

/// What the form narrows the archive down to; a query without a form asks for all of it.
pub(in super::super) fn parse_filter(query: &Element<'_>, ids_max: usize) -> Result<ArchiveFilter, StanzaError> {
    // Archives of nodes are those of a publish-subscribe service (XEP-0442).
    if query.attr("node").is_some() {
        return Err(StanzaError::FEATURE_NOT_IMPLEMENTED);
    }
    let mut filter = ArchiveFilter::default();
    let Some(form) = Form::inside(query)? else { return Ok(filter) };
    if form.kind.is_some_and(|kind| kind != ns::MAM) {
        return Err(StanzaError::BAD_REQUEST.text("This form is for something else."));
    }
    let mut seen = 0u32;
    for (name, values) in &form.fields {
        let place = FIELDS.iter().position(|(_, known)| *known == name);
        let bit =
            1 << place.ok_or(StanzaError::FEATURE_NOT_IMPLEMENTED.text("A field of the form is not known here."))?;
        if seen & bit != 0 {
            return Err(StanzaError::BAD_REQUEST.text("A field of the form is there twice."));
        }
        seen |= bit;
        match values.as_slice() {
            // Left empty.
            [] => {}
            [value] if value.is_empty() => {}
            values if *name == "ids" => filter.ids = Some(ids(values, ids_max)?),
            [value] => set(&mut filter, name, value)?,
            _ => return Err(StanzaError::BAD_REQUEST.text("A field of the form has several values.")),
        }
    }
    Ok(filter)
}

fn set(filter: &mut ArchiveFilter, name: &str, value: &str) -> Result<(), StanzaError> {
    const DATE: StanzaError = StanzaError::BAD_REQUEST.text("This is not a date and time as in XEP-0082.");
    match name {
        "with" => filter.with = Some(Jid::parse(value).map_err(|_| StanzaError::JID_MALFORMED)?),
        "start" => filter.start = Some(UtcTime::parse_up(value).ok_or(DATE)?),
        "end" => filter.end = Some(UtcTime::parse(value).ok_or(DATE)?),
        "before-id" => filter.before = Some(id(value)?),
        _ => filter.after = Some(id(value)?),
    }
    Ok(())
}

/// What was never an id here names nothing in the archive.
fn id(value: &str) -> Result<ArchiveId, StanzaError> {
    ArchiveId::parse(value.trim()).ok_or(StanzaError::ITEM_NOT_FOUND)
}

fn ids(values: &[String], ids_max: usize) -> Result<Vec<ArchiveId>, StanzaError> {
    if values.len() > ids_max {
        return Err(StanzaError::NOT_ACCEPTABLE.text("These are too many messages at once."));
    }
    values.iter().map(|value| id(value)).collect()
}

/// Which page of those.
pub(in super::super) fn parse_paging(
    query: &Element<'_>,
    page_max: usize,
    bytes_max: usize,
) -> Result<ArchivePaging, StanzaError> {
    let flip = query.child("flip-page", ns::MAM).is_some();
    let mut paging = ArchivePaging { max: page_max, bytes_max, after: None, before: None, backwards: false, flip };
    let Some(set) = query.child("set", ns::RSM) else { return Ok(paging) };
    if set.child("index", ns::RSM).is_some() {
        return Err(StanzaError::FEATURE_NOT_IMPLEMENTED.text("Pages are found by id, not by number."));
    }
    if let Some(max) = set.child("max", ns::RSM) {
        // What is too big for a number is above our own bound too.
        let max = max.text();
        let max = max.trim();
        if max.is_empty() || !max.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(StanzaError::BAD_REQUEST);
        }
        paging.max = max.parse().unwrap_or(usize::MAX).min(page_max);
    }
    if let Some(after) = set.child("after", ns::RSM).map(|after| after.text()).filter(|after| !after.is_empty()) {
        paging.after = Some(id(&after)?);
    }
    if let Some(before) = set.child("before", ns::RSM).map(|before| before.text()) {
        paging.backwards = true;
        paging.before = (!before.is_empty()).then(|| id(&before)).transpose()?;
    }
    Ok(paging)
}
