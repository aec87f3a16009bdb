#include "driver/image/json.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

absl::Status Wrong(const char* key, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("'", key, "' ", what));
}

// Null when there is nothing to read.
const Json* FindMember(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool IsText(const Json& value) {
  return value.is_string() && value.get_ref<const std::string&>().find('\0') == std::string::npos;
}

// Discarded when it is no JSON.
absl::StatusOr<Json> Parse(absl::string_view text) {
  bool too_deep = false;
  const auto check_depth = [&too_deep](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kMaxJsonDepth;
    return !too_deep;  // false: the value is dropped, so nothing deep is ever built
  };
  Json document = Json::parse(text.begin(), text.end(), check_depth, /*allow_exceptions=*/false);
  if (too_deep) return absl::InvalidArgumentError("its JSON is nested too deeply");
  return document;
}

}  // namespace

absl::StatusOr<Json> ParseJsonObject(absl::string_view text) {
  ASSIGN_OR_RETURN(Json document, Parse(text));
  if (!document.is_object()) return absl::InvalidArgumentError("is not a JSON object");
  return document;
}

absl::StatusOr<Json> ParseJsonArray(absl::string_view text) {
  ASSIGN_OR_RETURN(Json document, Parse(text));
  if (!document.is_array()) return absl::InvalidArgumentError("is not a JSON list");
  return document;
}

absl::Status ReadMember(const Json& object, const char* key, std::string& value) {
  const Json* const found = FindMember(object, key);
  if (found == nullptr) return absl::OkStatus();
  if (!IsText(*found)) return Wrong(key, "is not a text");
  value = found->get<std::string>();
  return absl::OkStatus();
}

absl::Status ReadMember(const Json& object, const char* key, int64_t& value) {
  const Json* const found = FindMember(object, key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_number_integer() ||
      (found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX)) {
    return Wrong(key, "is not a whole number");
  }
  value = found->get<int64_t>();
  return absl::OkStatus();
}

absl::Status ReadMember(const Json& object, const char* key, std::vector<std::string>& value) {
  const Json* const found = FindMember(object, key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_array()) return Wrong(key, "is not a list");
  std::vector<std::string> texts;
  for (const Json& element : *found) {
    if (!IsText(element)) return Wrong(key, "is not a list of texts");
    texts.push_back(element.get<std::string>());
  }
  value = std::move(texts);
  return absl::OkStatus();
}

}  // namespace jenkins_agent
