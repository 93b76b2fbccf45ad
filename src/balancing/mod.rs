//! Which endpoint of a pool, which endpoint is left alone for a while, how many retries a pool bears, and how often
//! something may happen.
//!
//! Pure: time, draws and what an endpoint carries come in as arguments.

mod ejection;
mod health;
mod picker;
mod rate;
mod retry_budget;

pub use ejection::{Ejections, LONGEST_MS, most_ejected};
pub use health::Health;
pub use picker::{Candidates, Entry, Method, Picker, address_hash};
pub use rate::Rate;
pub use retry_budget::RetryBudget;
