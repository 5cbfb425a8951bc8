//! Data forms (XEP-0004) of a node's configuration.

use super::super::prelude::*;
use super::INVALID_OPTIONS;
use crate::core::form::{self, Field, Form};
use crate::core::pubsub::NodeConfig;

/// The fields of the form inside `around`; none if it holds no form or one that is cancelled.
pub(super) fn parse(around: Option<Element<'_>>) -> Result<Vec<Field>, StanzaError> {
    let Some(around) = around else { return Ok(Vec::new()) };
    let form = Form::inside(&around).map_err(|_| INVALID_OPTIONS)?.filter(|form| !form.cancelled).unwrap_or_default();
    // What no node could have needs no store to be refused.
    match NodeConfig::default().with(&form.fields) {
        Some(_) => Ok(form.fields),
        None => Err(INVALID_OPTIONS),
    }
}

/// The owner's form with the current values.
pub(super) fn write(w: &mut Writer<'_>, config: &NodeConfig) {
    form::open(w, "form", ns::PUBSUB_NODE_CONFIG);
    for (name, input, values) in config.fields() {
        form::field(w, name, "", input, &values);
    }
    w.close();
}

/// What readers are told of a node (XEP-0060 section 5.4).
pub(super) fn write_description(w: &mut Writer<'_>, config: &NodeConfig) {
    form::open(w, "result", ns::PUBSUB_META_DATA);
    for (name, _, values) in config.fields() {
        // The owner's groups are nobody else's business.
        if matches!(name, "pubsub#title" | "pubsub#type" | "pubsub#access_model" | "pubsub#max_items") {
            form::told(w, name, &values);
        }
    }
    w.close();
}
