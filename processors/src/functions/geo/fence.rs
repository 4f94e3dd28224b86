//! An area of the earth, from GeoJSON (RFC 7946).
//!
//! Polygons, multipolygons, and features and collections of them; a place is within when it is in one of them. An edge belongs to
//! the area, that of a hole too, so that two neighbours leave no gap. Edges are straight lines of degrees, and none crosses the
//! antimeridian: RFC 7946 (3.1.9) wants an area that does cut in two there.

use geo::coordinate_position::{CoordPos, CoordinatePosition};
use geo::{BoundingRect, Coord, Intersects, LineString, Polygon, Rect};
use geojson::{GeoJson, GeometryValue, Position};
use std::hash::{Hash, Hasher};

/// An area, ready to be asked.
#[derive(Debug)]
pub(super) struct Fence {
    text: String,
    polygons: Vec<(Rect, Polygon)>,
}

/// Why a text is no area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    /// Line and column of the text, from 1, where the JSON itself is broken.
    pub(crate) at: Option<(usize, usize)>,
}

impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Fence {}

impl Hash for Fence {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Fence {
    /// Reads an area.
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut polygons = Vec::new();
        match text.parse::<GeoJson>().map_err(broken)? {
            GeoJson::Geometry(geometry) => add(&geometry.value, &mut polygons)?,
            GeoJson::Feature(feature) => add_feature(&feature, &mut polygons)?,
            GeoJson::FeatureCollection(all) => all.features.iter().try_for_each(|f| add_feature(f, &mut polygons))?,
        }
        if polygons.is_empty() {
            return Err(wrong("the GeoJSON has no polygon"));
        }
        Ok(Self { text: text.to_owned(), polygons })
    }

    /// Whether a place is within.
    pub(super) fn holds(&self, lat: f64, lon: f64) -> bool {
        let place = Coord { x: lon, y: lat };
        // The rectangle is asked first: most places are far away.
        self.polygons.iter().any(|(around, area)| around.intersects(&place) && area.coordinate_position(&place) != CoordPos::Outside)
    }
}

fn wrong(message: impl Into<String>) -> Wrong {
    Wrong { message: message.into(), at: None }
}

fn broken(error: geojson::Error) -> Wrong {
    let at = match &error {
        geojson::Error::MalformedGeoJson(json) => Some((json.line(), json.column())).filter(|at| at.0 > 0 && at.1 > 0),
        _ => None,
    };
    Wrong { message: format!("this is no GeoJSON: {error}"), at }
}

fn add_feature(feature: &geojson::Feature, polygons: &mut Vec<(Rect, Polygon)>) -> Result<(), Wrong> {
    feature.geometry.as_ref().map_or(Ok(()), |geometry| add(&geometry.value, polygons))
}

fn add(geometry: &GeometryValue, polygons: &mut Vec<(Rect, Polygon)>) -> Result<(), Wrong> {
    match geometry {
        GeometryValue::Polygon { coordinates } => polygons.push(polygon(coordinates)?),
        GeometryValue::MultiPolygon { coordinates } => {
            for rings in coordinates {
                polygons.push(polygon(rings)?);
            }
        }
        GeometryValue::GeometryCollection { geometries } => geometries.iter().try_for_each(|g| add(&g.value, polygons))?,
        other => return Err(wrong(format!("a {} has no inside; polygons and multipolygons have", other.type_name()))),
    }
    Ok(())
}

fn polygon(rings: &[Vec<Position>]) -> Result<(Rect, Polygon), Wrong> {
    let mut rings = rings.iter().map(|r| ring(r)).collect::<Result<Vec<_>, _>>()?.into_iter();
    let outer = rings.next().ok_or_else(|| wrong("a polygon has no ring"))?;
    let polygon = Polygon::new(outer, rings.collect());
    let around = polygon.bounding_rect().ok_or_else(|| wrong("a polygon has no ring"))?;
    Ok((around, polygon))
}

/// A ring as RFC 7946 (3.1.6) wants it: closed, of four positions or more, longitude before latitude.
fn ring(positions: &[Position]) -> Result<LineString, Wrong> {
    let mut line = Vec::with_capacity(positions.len());
    for position in positions {
        let [lon, lat, ..] = position[..] else { return Err(wrong("a position has fewer than two numbers")) };
        line.push(place(lon, lat)?);
    }
    if line.len() < 4 {
        return Err(wrong(format!("a ring has {} positions; at least four are needed, the first of them again as the last", line.len())));
    }
    if line.first() != line.last() {
        return Err(wrong("a ring is not closed: its last position must be its first"));
    }
    Ok(LineString::new(line))
}

fn place(lon: f64, lat: f64) -> Result<Coord, Wrong> {
    if lat.abs() > 90.0 {
        return Err(wrong(format!("there is no latitude {lat}; GeoJSON has the longitude first")));
    }
    if lon.abs() > 180.0 {
        return Err(wrong(format!("there is no longitude {lon}; an area over the antimeridian is cut in two there")));
    }
    Ok(Coord { x: lon, y: lat })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const YARD: &str = r#"{"type":"Polygon","coordinates":[[[0,0],[10,0],[10,10],[0,10],[0,0]],[[4,4],[6,4],[6,6],[4,6],[4,4]]]}"#;

    #[test]
    fn a_hole_is_outside_and_an_edge_is_inside() {
        let yard = Fence::parse(YARD).unwrap();
        for (lat, lon, want) in
            [(1.0, 1.0, true), (5.0, 5.0, false), (4.0, 5.0, true), (0.0, 0.0, true), (10.0, 3.0, true), (10.001, 3.0, false)]
        {
            assert_eq!(yard.holds(lat, lon), want, "{lat} {lon}");
        }
    }

    #[test]
    fn every_form_that_has_an_inside_is_read() {
        let square = |x: i32| format!("[[[{x},0],[{0},0],[{0},1],[{x},1],[{x},0]]]", x + 1);
        let (one, two) = (square(0), square(5));
        let polygon = |rings: &str| format!(r#"{{"type":"Polygon","coordinates":{rings}}}"#);
        let feature = |rings: &str| format!(r#"{{"type":"Feature","properties":null,"geometry":{}}}"#, polygon(rings));
        for text in [
            format!(r#"{{"type":"MultiPolygon","coordinates":[{one},{two}]}}"#),
            format!(r#"{{"type":"GeometryCollection","geometries":[{},{}]}}"#, polygon(&one), polygon(&two)),
            format!(r#"{{"type":"FeatureCollection","features":[{},{}]}}"#, feature(&one), feature(&two)),
        ] {
            let fence = Fence::parse(&text).unwrap();
            assert_eq!([0.5, 3.0, 5.5].map(|lon| fence.holds(0.5, lon)), [true, false, true], "{text}");
        }
    }

    #[test]
    fn what_is_no_area_says_why() {
        let ring = |ring: &str| format!(r#"{{"type":"Polygon","coordinates":[{ring}]}}"#);
        for (text, why) in [
            (ring("[[0,0],[1,0],[0,0]]"), "3 positions"),
            (ring("[[0,0],[1,0],[1,1],[0,1]]"), "not closed"),
            (ring("[[13,52],[13,152],[14,52],[13,52]]"), "longitude first"),
            (ring("[[179,0],[181,0],[181,1],[179,0]]"), "antimeridian"),
            (r#"{"type":"Polygon","coordinates":[]}"#.into(), "no ring"),
            (r#"{"type":"Point","coordinates":[0,0]}"#.into(), "no inside"),
            (r#"{"type":"FeatureCollection","features":[]}"#.into(), "no polygon"),
            (r#"{"type":"Polygone"}"#.into(), "no GeoJSON"),
            ("depot".into(), "no GeoJSON"),
        ] {
            let error = Fence::parse(&text).unwrap_err();
            assert!(error.message.contains(why), "{text}: {error:?}");
        }
        assert_eq!(Fence::parse("{\n \"type\": oops}").unwrap_err().at, Some((2, 10)));
    }

    proptest! {
        #[test]
        fn a_polygon_of_steps_holds_what_its_columns_hold(heights in prop::collection::vec(1i32..9, 1..12), x in 0.0..12.0, y in 0.0..9.0) {
            // A skyline: column i is as high as heights[i].
            let mut ring = vec![(0, 0)];
            for (at, height) in (0..).zip(&heights) {
                ring.extend([(at, *height), (at + 1, *height)]);
            }
            ring.extend([(i32::try_from(heights.len()).unwrap(), 0), (0, 0)]);
            let fence = Fence::parse(&serde_json::json!({ "type": "Polygon", "coordinates": [ring] }).to_string()).unwrap();
            let want = heights.get(x as usize).is_some_and(|height| y <= f64::from(*height));
            prop_assert_eq!(fence.holds(y, x), want);
        }
    }
}
