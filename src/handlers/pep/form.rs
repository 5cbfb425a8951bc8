//! Data forms (XEP-0004) of a node's configuration.

use super::super::prelude::*;
use super::INVALID_OPTIONS;
use crate::core::pubsub::{Field, FieldKind, NodeConfig};

/// Fields of one form at most.
const FIELDS_MAX: usize = 64;

/// The fields of the form inside `around`; none if it holds no form or one that is cancelled.
pub(super) fn parse(around: Option<Element<'_>>) -> Result<Vec<Field>, StanzaError> {
    let Some(form) = around.and_then(|around| around.child("x", ns::DATA_FORMS)) else { return Ok(Vec::new()) };
    if form.attr("type") == Some("cancel") {
        return Ok(Vec::new());
    }
    let fields: Vec<Element<'_>> = form.children().filter(|child| child.is("field", ns::DATA_FORMS)).collect();
    if fields.len() > FIELDS_MAX {
        return Err(INVALID_OPTIONS);
    }
    let values = |field: &Element<'_>| {
        let values = field.children().filter(|child| child.is("value", ns::DATA_FORMS));
        values.map(|value| value.text().into_owned()).collect()
    };
    let parse = |field: Element<'_>| Some((field.attr("var")?.to_owned(), values(&field)));
    let fields: Vec<Field> = fields.into_iter().filter_map(parse).collect();
    // What no node could have needs no store to be refused.
    match NodeConfig::default().with(&fields) {
        Some(_) => Ok(fields),
        None => Err(INVALID_OPTIONS),
    }
}

/// The owner's form with the current values.
pub(super) fn write(w: &mut Writer<'_>, config: &NodeConfig) {
    open(w, "form", ns::PUBSUB_NODE_CONFIG);
    for (name, kind, values) in config.fields() {
        let type_ = match kind {
            FieldKind::Switch => "boolean",
            FieldKind::Choice(_) => "list-single",
            FieldKind::Text => "text-single",
            FieldKind::Texts => "text-multi",
        };
        w.open("field", ns::DATA_FORMS).attr("var", name).attr("type", type_);
        for value in &values {
 w.text_element("value", value);
}
        if let FieldKind::Choice(choices) = kind {
            for choice in choices {
                w.open("option", ns::DATA_FORMS).text_element("value", choice).close();
            }
        }
        w.close();
    }
    w.close();
}

/// What readers are told of a node (XEP-0060 section 5.4).
pub(super) fn write_description(w: &mut Writer<'_>, config: &NodeConfig) {
    open(w, "result", ns::PUBSUB_META_DATA);
    for (name, _, values) in config.fields() {
        // The owner's groups are nobody else's business.
        if matches!(name, "pubsub#title" | "pubsub#type" | "pubsub#access_model" | "pubsub#max_items") {
            w.open("field", ns::DATA_FORMS).attr("var", name);
            for value in &values {
 w.text_element("value", value);
}
            w.close();
        }
    }
    w.close();
}

fn open(w: &mut Writer<'_>, kind: &'static str, form_type: &'static str) {
    w.open("x", ns::DATA_FORMS).attr("type", kind);
    w.open("field", ns::DATA_FORMS).attr("var", "FORM_TYPE").attr("type", "hidden");
    w.text_element("value", form_type).close();
}
