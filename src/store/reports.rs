//! Reports of spam and abuse (XEP-0377), by the domain of who reports; the oldest make room.

use std::ops::ControlFlow;

use super::apply::{Rules, Staged, malformed};
use super::schema::{self, Table};
use crate::core::effects::{StoreError, StoreReply, Stored};
use crate::core::reports::Report;

pub(super) fn put(tx: &mut Staged<'_>, rules: &Rules, report: &Report) -> Result<(), StoreError> {
    let (from, to) = schema::report_keys(report.by.domain());
    let (mut keys, mut result) = (Vec::new(), Ok(0));
    tx.scan(Table::Reports, &from, &to, &mut |key, _| {
        result = schema::offline_seq(key).map_err(|error| malformed(Table::Reports, key, error));
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    let number = result?.checked_add(1).ok_or(StoreError::Full)?;
    let gone = (keys.len() + 1).saturating_sub(rules.limits.reports_max);
    keys.into_iter().take(gone).for_each(|key| tx.delete(Table::Reports, key));
    if rules.limits.reports_max > 0 {
        tx.put(Table::Reports, schema::report_key(report.by.domain(), number), schema::encode_report(report));
    }
    Ok(())
}

/// The latest first, behind the one of that number.
pub(super) fn list(tx: &mut Staged<'_>, domain: &str, before: Option<u64>, max: usize) -> StoreReply {
    let (from, to) = schema::report_keys(domain);
    let to = before.map_or(to, |before| schema::report_key(domain, before));
    let (mut reports, mut result) = (Vec::new(), Ok(()));
    tx.scan_back(Table::Reports, &from, &to, &mut |key, record| {
        if reports.len() >= max {
            return ControlFlow::Break(());
        }
        match schema::offline_seq(key).and_then(|number| Ok((number, schema::decode_report(record)?))) {
            Ok(report) => reports.push(report),
            Err(error) => result = Err(malformed(Table::Reports, key, error)),
        }
        ControlFlow::Continue(())
    })?;
    result.map(|()| Stored::Reports(reports))
}
