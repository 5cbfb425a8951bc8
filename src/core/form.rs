//! XEP-0004: data forms, read and written here by everybody who has one.
//!
//! A form is read into its fields before anything is decided, so that a bound on their number holds for all of them. What a
//! missing, unknown or repeated field means differs from form to form and is said by who asks.

use std::fmt::Display;

use crate::core::error::StanzaError;
use crate::xml::{Element, Writer, ns};

/// Fields of one form at most.
pub const FIELDS_MAX: usize = 128;

/// A field as sent: its name and its values.
pub type Field = (String, Vec<String>);

/// A form that a client has filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Its fields in order, but for the one that names its type.
    pub fields: Vec<Field>,
    /// The form's type (XEP-0068), if it says one.
    pub kind: Option<String>,
    /// The client did not want to fill it in.
    pub cancelled: bool,
}

impl Form {
    /// The form that is a child of `around`; `None` if there is none.
    ///
    /// # Errors
    /// `not-acceptable` for more than [`FIELDS_MAX`] fields.
    pub fn inside(around: &Element<'_>) -> Result<Option<Form>, StanzaError> {
        around.child("x", ns::DATA_FORMS).map(|form| Form::parse(&form)).transpose()
    }

    /// From the form's own element. A field without a name is one that only shows a text.
    ///
    /// # Errors
    /// As [`Form::inside`].
    pub fn parse(element: &Element<'_>) -> Result<Form, StanzaError> {
        let mut form = Form { cancelled: element.attr("type") == Some("cancel"), ..Form::default() };
        for field in element.children().filter(|child| child.is("field", ns::DATA_FORMS)) {
            let Some(name) = field.attr("var") else { continue };
            let values = field.children().filter(|child| child.is("value", ns::DATA_FORMS));
            let mut values: Vec<String> = values.map(|value| value.text().into_owned()).collect();
            if name == FORM_TYPE {
                form.kind = (!values.is_empty()).then(|| values.swap_remove(0));
            } else if form.fields.len() < FIELDS_MAX {
                form.fields.push((name.to_owned(), values));
            } else {
                return Err(StanzaError::NOT_ACCEPTABLE.text("The form has too many fields."));
            }
        }
        Ok(form)
    }

    /// The values of a field; `None` if it is not there.
    pub fn values(&self, name: &str) -> Option<&[String]> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, values)| values.as_slice())
    }

    /// The first value of a field.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values(name)?.first().map(String::as_str)
    }
}

const FORM_TYPE: &str = "FORM_TYPE";

/// How a field is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `text-single`
    Text,
    /// `text-private`
    Secret,
    /// `text-multi`
    Texts,
    /// `boolean`
    Switch,
    /// `jid-single`
    Jid,
    /// `jid-multi`
    Jids,
    /// `list-single` of these: value and label.
    One(&'static [(&'static str, &'static str)]),
    /// `list-multi` of these.
    Some(&'static [(&'static str, &'static str)]),
    /// `list-multi` of whatever (XEP-0122).
    Any,
}

impl Input {
    /// Value of the field's `type`.
    pub fn name(self) -> &'static str {
        match self {
            Input::Text => "text-single",
            Input::Secret => "text-private",
            Input::Texts => "text-multi",
            Input::Switch => "boolean",
            Input::Jid => "jid-single",
            Input::Jids => "jid-multi",
            Input::One(_) => "list-single",
            Input::Some(_) | Input::Any => "list-multi",
        }
    }

    fn options(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Input::One(options) | Input::Some(options) => options,
            _ => &[],
        }
    }
}

/// How a boolean is written.
pub fn switch(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}

/// A boolean as XML Schema has it.
pub fn parse_switch(value: &str) -> Option<bool> {
    match value {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// Opens a form of a type (`form`, `result` or `submit`) and says what it is for (XEP-0068). Title, instructions and fields
/// follow; [`Writer::close`] ends it.
pub fn open(w: &mut Writer<'_>, type_: &'static str, kind: &str) {
    w.open("x", ns::DATA_FORMS).attr("type", type_);
    w.open("field", ns::DATA_FORMS).attr("var", FORM_TYPE).attr("type", "hidden").text_element("value", kind).close();
}

/// Opens a form with a title and instructions for who fills it in.
pub fn open_titled(w: &mut Writer<'_>, kind: &str, title: impl Display, instructions: &str) {
    w.open("x", ns::DATA_FORMS).attr("type", "form").text_element("title", title);
    if !instructions.is_empty() {
        w.text_element("instructions", instructions);
    }
    w.open("field", ns::DATA_FORMS).attr("var", FORM_TYPE).attr("type", "hidden").text_element("value", kind).close();
}

/// A field to be filled in. An empty label is left out.
pub fn field(w: &mut Writer<'_>, name: &str, label: &str, input: Input, values: &[impl Display]) {
    w.open("field", ns::DATA_FORMS).attr("var", name).attr("type", input.name());
    w.attr_opt("label", (!label.is_empty()).then_some(label));
    for value in values {
        w.text_element("value", value);
    }
    for (value, label) in input.options() {
        option(w, value, label);
    }
    if input == Input::Any {
        w.open("validate", ns::VALIDATE).attr("datatype", "xs:string").empty("open", ns::VALIDATE).close();
    }
    w.close();
}

fn option(w: &mut Writer<'_>, value: &str, label: &str) {
    w.open("option", ns::DATA_FORMS).attr_opt("label", (!label.is_empty()).then_some(label));
    w.text_element("value", value).close();
}

/// A field in which some of what there is just now is chosen: value and label.
pub fn choice(w: &mut Writer<'_>, name: &str, label: &str, options: &[(String, String)]) {
    w.open("field", ns::DATA_FORMS).attr("var", name).attr("type", "list-multi").attr("label", label);
    options.iter().for_each(|(value, label)| option(w, value, label));
    w.close();
}

/// An empty field that must be filled in.
pub fn required(w: &mut Writer<'_>, name: &str, label: &str, input: Input) {
    w.open("field", ns::DATA_FORMS).attr("var", name).attr("type", input.name()).attr("label", label);
    w.empty("required", ns::DATA_FORMS).close();
}

/// A field of a result: only the name and what it is.
pub fn told(w: &mut Writer<'_>, name: &str, values: &[impl Display]) {
    w.open("field", ns::DATA_FORMS).attr("var", name);
    for value in values {
        w.text_element("value", value);
    }
    w.close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::Tree;

    #[test]
    fn what_was_filled_in() {
        let check = |xml: &str, expected: Result<Form, &str>| {
            let xml = format!("<x xmlns='jabber:x:data' {xml}</x>");
            let tree = Tree::parse(&xml, ns::CLIENT).expect("a form");
            assert_eq!(Form::parse(&tree.root()).map_err(|error| error.condition), expected, "{xml}");
        };
        let field = |name: &str, values: &[&str]| (name.to_owned(), values.iter().map(|v| (*v).to_owned()).collect());
        check("type='submit'>", Ok(Form::default()));
        check("type='cancel'>", Ok(Form { cancelled: true, ..Form::default() }));
        let one = Form { fields: vec![field("a", &["1", ""])], kind: Some("urn:x".to_owned()), cancelled: false };
        check(
            "type='submit'><title>t</title><field var='FORM_TYPE'><value>urn:x</value></field><field><value>n</value></field>\
             <field var='a'><value>1</value><value/><other xmlns='urn:o'/></field><field xmlns='urn:o' var='b'/>",
            Ok(one),
        );
        let none = Form { fields: vec![field("a", &[])], ..Form::default() };
        check("><field var='FORM_TYPE'/><field var='a'/>", Ok(none));
        check(&format!(">{}", "<field var='a'/>".repeat(FIELDS_MAX + 1)), Err("not-acceptable"));
    }

    #[test]
    fn booleans() {
        let all = ["1", "true", "0", "false", "", "yes", "TRUE"];
        let expected = [Some(true), Some(true), Some(false), Some(false), None, None, None];
        assert_eq!(all.map(parse_switch), expected);
    }
}
