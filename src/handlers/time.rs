//! XEP-0202: Entity Time. The server tells UTC; where it stands is nobody's business.

use super::prelude::*;

pub(super) const HANDLER: Handler = Handler {
    name: "time",
    spec: "XEP-0202 2.0",
    features: &[ns::TIME],
    routes: &[iq_get(Target::Host, ns::TIME, "time", tell)],
    ..Handler::EMPTY
};

fn tell(cx: &mut Cx<'_>, iq: &Iq<'_>) -> Handled {
    let utc = cx.now.utc;
    cx.out.reply(cx.conn, iq, |w| {
        w.open("time", ns::TIME).text_element("tzo", "+00:00").text_element("utc", utc);
    });
    Ok(Done)
}
