//! The schemas of the `OpenAPI` document, generated from the types that requests are read into and replies are
//! written from, by the names that the tables of endpoints give them.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::http::api::groups::{self, GroupOut, MembersIn, RemovedOut, SetIn};
use crate::http::api::operations::{HealthOut, PresenceOut, StatusOut};
use crate::http::api::push::{BATCH_MAX, ItemIn, OneIn, ReceiptOut, ResultsOut};
use crate::http::api::shapes::{
    After, ConversationPage, Events, HistoryPage, InboxPage, Lines, Message, OpenApiDocument,
    Problem,
};
use crate::http::api::tokens::{TokenIn, TokenOut};

/// By name, all that some endpoint takes or gives, and what these refer to.
pub(in crate::http) fn all() -> Map<String, Value> {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    let mut replies = settings().for_serialize().into_generator();
    add_replies(&mut replies);
    let mut requests = settings().for_deserialize().into_generator();
    let sent = add_requests(&mut requests);
    let mut schemas = replies.take_definitions(true);
    schemas.extend(requests.take_definitions(true));
    schemas.extend(sent);
    for schema in schemas.values_mut() {
        plain_enum(schema);
        no_null_defaults(schema);
    }
    schemas
}

/// That a field may be left out is said by `required`; null would be no value of its type.
fn no_null_defaults(schema: &mut Value) {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut) {
        if let Some(property) = property.as_object_mut() {
            property.retain(|key, value| key != "default" || !value.is_null());
        }
    }
}

/// Texts to choose from, each with a description, as a plain `enum`: generated clients make one type of it.
fn plain_enum(schema: &mut Value) {
    let texts = schema
        .get("oneOf")
        .and_then(Value::as_array)
        .and_then(|all| {
            let texts = all
                .iter()
                .map(|one| one.get("const").filter(|text| text.is_string()));
            texts
                .map(Option::<&Value>::cloned)
                .collect::<Option<Vec<_>>>()
        });
    if let (Some(texts), Some(fields)) = (texts, schema.as_object_mut()) {
        fields.remove("oneOf");
        fields.insert("type".into(), "string".into());
        fields.insert("enum".into(), texts.into());
    }
}

/// Each is found under the name that its type has in schemas.
fn add_replies(generator: &mut SchemaGenerator) {
    drop([
        generator.subschema_for::<Message>(),
        generator.subschema_for::<InboxPage>(),
        generator.subschema_for::<Events>(),
        generator.subschema_for::<Lines>(),
        generator.subschema_for::<HistoryPage>(),
        generator.subschema_for::<ConversationPage>(),
        generator.subschema_for::<ReceiptOut>(),
        generator.subschema_for::<ResultsOut>(),
        generator.subschema_for::<groups::ReceiptOut<'_>>(),
        generator.subschema_for::<RemovedOut<'_>>(),
        generator.subschema_for::<GroupOut<'_>>(),
        generator.subschema_for::<TokenOut<'_>>(),
        generator.subschema_for::<PresenceOut<'_>>(),
        generator.subschema_for::<StatusOut>(),
        generator.subschema_for::<HealthOut>(),
        generator.subschema_for::<OpenApiDocument>(),
        generator.subschema_for::<Problem>(),
    ]);
}

/// The same, and those of types that are read in several places, each with other fields.
fn add_requests(generator: &mut SchemaGenerator) -> Map<String, Value> {
    drop([
        generator.subschema_for::<SetIn>(),
        generator.subschema_for::<After>(),
        generator.subschema_for::<MembersIn>(),
        generator.subschema_for::<TokenIn>(),
    ]);
    let one = generator.root_schema_for::<OneIn<'_>>().to_value();
    let item = generator.root_schema_for::<ItemIn<'_>>().to_value();
    let of_item = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let many = json!({
        "type": "array",
        "maxItems": BATCH_MAX,
        "items": { "oneOf": [of_item("DirectPush"), of_item("GroupPush")] },
    });
    let sent = [
        (
            "Send",
            variant(&one, "A message that a user sends.", &["body"], &["from"]),
        ),
        ("Push", variant(&one, "A message.", &["from", "body"], &[])),
        ("PushMany", many),
        (
            "DirectPush",
            variant(
                &item,
                "A message to a user.",
                &["to", "from", "body"],
                &["group"],
            ),
        ),
        (
            "GroupPush",
            variant(
                &item,
                "A message to a group.",
                &["group", "from", "body"],
                &["to"],
            ),
        ),
    ];
    sent.map(|(name, schema)| (name.to_owned(), schema))
        .into_iter()
        .collect()
}

/// A schema as one of the places has it that read its type.
fn variant(schema: &Value, about: &str, required: &[&str], without: &[&str]) -> Value {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut() {
        // With these, a root schema would be a document of its own.
        for key in ["title", "$schema", "$defs", "components"] {
            fields.remove(key);
        }
        fields.insert("description".into(), about.into());
        fields.insert("required".into(), json!(required));
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|name, _| !without.contains(&name.as_str()));
    }
    schema
}
