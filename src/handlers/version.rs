//! XEP-0092: Software Version. The operating system is not told.

use super::prelude::*;

pub(super) const HANDLER: Handler = Handler {
    name: "version",
    spec: "XEP-0092 1.1",
    features: &[ns::VERSION],
    routes: &[iq_get(Target::Host, ns::VERSION, "query", tell)],
    ..Handler::EMPTY
};

fn tell(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    cx.out.reply(cx.conn, iq, |w| {
        w.open("query", ns::VERSION);
        w.text_element("name", "Whinchat").text_element("version", env!("CARGO_PKG_VERSION"));
    });
    Ok(Done)
}
