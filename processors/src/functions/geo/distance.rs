//! `geo_distance(lat1, lon1, lat2, lon2)`: metres along a great circle, on a sphere of the earth's mean radius (6,371,008.8 m).
//!
//! By the haversine formula; the earth is not a sphere, so it is wrong by up to half a percent. A latitude beyond ±90 degrees gives null.

use super::{numbers, row};
use arrow::array::Float64Array;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use geo::{Distance as _, Haversine, Point};
use std::sync::Arc;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::functions) struct Distance {
    signature: Signature,
}

impl Distance {
    pub(in crate::functions) fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Float64; 4], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Distance {
    fn name(&self) -> &str {
        "geo_distance"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = numbers(&args.args, args.number_rows)?;
        let metres: Float64Array = (0..args.number_rows).map(|at| row(&columns, at).and_then(metres)).collect();
        Ok(ColumnarValue::Array(Arc::new(metres)))
    }
}

fn metres([lat1, lon1, lat2, lon2]: [f64; 4]) -> Option<f64> {
    let on_earth = lat1.abs() <= 90.0 && lat2.abs() <= 90.0;
    on_earth.then(|| Haversine.distance(Point::new(lon1, lat1), Point::new(lon2, lat2)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quarter_of_the_earth_is_ten_thousand_kilometres() {
        let quarter = std::f64::consts::FRAC_PI_2 * 6_371_008.8;
        for places in [[0.0, 0.0, 90.0, 13.0], [0.0, 0.0, 0.0, -90.0], [0.0, 179.0, 0.0, -91.0]] {
            assert!((metres(places).unwrap() - quarter).abs() < 1e-3, "{places:?}");
        }
        assert_eq!(metres([90.1, 0.0, 0.0, 0.0]), None);
    }

    proptest! {
        #[test]
        fn it_is_the_angle_between_the_two_places(lat1 in -89.0..89.0, lon1 in -180.0..180.0, lat2 in -89.0..89.0, lon2 in -180.0..180.0) {
            // The straight way through the earth, by vectors.
            let vector = |lat: f64, lon: f64| [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()];
            let [a, b] = [(lat1, lon1), (lat2, lon2)].map(|(lat, lon): (f64, f64)| vector(lat.to_radians(), lon.to_radians()));
            let chord = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            let want = 2.0 * (chord / 2.0).min(1.0).asin() * 6_371_008.8;
            let got = metres([lat1, lon1, lat2, lon2]).unwrap();
            prop_assert!((got - want).abs() < 1.0, "{got} instead of {want}");
            prop_assert_eq!(metres([lat1, lon1, lat1, lon1]), Some(0.0));
        }
    }
}
