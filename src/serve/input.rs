//! From a request's body to images: PNG, JPEG or JSON.

use crate::data::image;
use crate::error::{Error, Result};
use serde_json::Value;

/// Decodes an image file to bytes `[C, H, W]`; `name` stands for it in messages.
///
/// # Errors
/// If it is neither PNG nor JPEG, or too large.
pub fn file(name: &str, bytes: &[u8], shape: [usize; 3]) -> Result<Vec<u8>> {
    if bytes.is_empty() {
        return Err(Error::data(name, "is empty; expected a PNG or JPEG image"));
    }
    image::from_bytes(name, bytes, shape)
}

/// The images of `{"pixels": …}`: bytes 0 to 255 in the order [C, H, W], nested in any way or
/// flat, one image or several.
///
/// # Errors
/// If it is no such JSON, or the numbers are not those of whole images.
pub fn json(bytes: &[u8], shape: [usize; 3]) -> Result<Vec<Vec<u8>>> {
    let fail = |problem: String| Error::data("JSON body", problem);
    let body: Value = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
    let Some(object) = body.as_object() else {
        return Err(fail("expected an object {\"pixels\": […]}".into()));
    };
    if let Some(unknown) = object.keys().find(|key| *key != "pixels") {
        return Err(fail(format!(
            "unknown field {unknown:?}; expected \"pixels\""
        )));
    }
    let Some(pixels) = object.get("pixels").filter(|p| p.is_array()) else {
        return Err(fail("pixels: expected an array".into()));
    };
    let mut flat = Vec::new();
    if let Err(found) = flatten(pixels, &mut flat) {
        let (at, expected) = (flat.len(), "expected whole numbers from 0 to 255");
        return Err(fail(format!("pixels: {expected}, found {found} at {at}")));
    }
    let [c, h, w] = shape;
    let image = c * h * w;
    if flat.is_empty() || !flat.len().is_multiple_of(image) {
        let found = flat.len();
        return Err(fail(format!(
            "pixels: expected {c} x {h} x {w} = {image} numbers an image, found {found}"
        )));
    }
    Ok(flat.chunks_exact(image).map(<[u8]>::to_vec).collect())
}

/// The numbers of nested arrays in order; what is none is the error.
fn flatten(value: &Value, into: &mut Vec<u8>) -> std::result::Result<(), String> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| flatten(item, into)),
        other => match other.as_u64().and_then(|n| u8::try_from(n).ok()) {
            Some(byte) => {
                into.push(byte);
                Ok(())
            }
            None => Err(other.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_may_be_nested_and_of_several_images() {
        let flat = json(br#"{"pixels": [1, 2, 3, 255]}"#, [1, 2, 2]).unwrap();
        assert_eq!(flat, [[1, 2, 3, 255]]);
        let nested = json(
            br#"{"pixels": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}"#,
            [1, 2, 2],
        );
        assert_eq!(nested.unwrap(), [[1, 2, 3, 4], [5, 6, 7, 8]]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("[1]", "expected an object"),
            ("{\"pixels\": 3}", "expected an array"),
            (
                "{\"pixels\": [1, 2, 3]}",
                "1 x 2 x 2 = 4 numbers an image, found 3",
            ),
            ("{\"pixels\": []}", "found 0"),
            ("{\"pixels\": [1, 0.5, 3, 4]}", "found 0.5"),
            ("{\"pixels\": [1, 256, 3, 4]}", "found 256"),
            ("{\"pixels\": [1, [\"x\"]]}", "found \"x\""),
            ("{\"pixels\": [], \"top\": 1}", "unknown field \"top\""),
            ("{\"pixels\": [", "EOF"),
        ];
        for (body, expected) in cases {
            let error = json(body.as_bytes(), [1, 2, 2]).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }
}
