#include "driver/config/decode.h"

#include <cmath>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"
#include "driver/base/utf8.h"
#include "driver/config/msgpack.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

struct KindVisitor {
  std::string operator()(std::monostate) const { return "nothing"; }
  std::string operator()(bool) const { return "a bool"; }
  std::string operator()(int64_t) const { return "a number"; }
  std::string operator()(double) const { return "a number"; }
  std::string operator()(const std::string&) const { return "a string"; }
  std::string operator()(const Value::List&) const { return "a list"; }
  std::string operator()(const Value::Map&) const { return "a map"; }
};

// Names the kind only, never the content: it may be a secret in the wrong place.
absl::Status WrongKind(const Value& value, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("found ", std::visit(KindVisitor(), value.data), ", expected ", expected));
}

absl::StatusOr<std::string> ToString(const Value& value) {
  const auto* text = std::get_if<std::string>(&value.data);
  if (text == nullptr) return WrongKind(value, "a string");
  if (text->find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("contains a NUL byte, which no argument or path can hold");
  }
  if (!IsUtf8(*text)) return absl::InvalidArgumentError("contains bytes that are not UTF-8");
  if (text->size() > kMaxOptionBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(text->size(), " bytes are too long (allowed: up to ", kMaxOptionBytes, ")"));
  }
  return *text;
}

absl::Status NotWhole(absl::string_view found) {
  return absl::InvalidArgumentError(
      absl::StrCat(found, " is not a whole number of at most 19 digits"));
}

absl::StatusOr<int64_t> WholeNumber(double value) {
  constexpr double kTwoTo63 = 9223372036854775808.0;
  if (std::trunc(value) != value || value < -kTwoTo63 || value >= kTwoTo63) {
    return NotWhole(absl::StrCat(value));
  }
  return static_cast<int64_t>(value);
}

// Nomad sends what fits neither int64 nor binary64 exactly as decimal text (3.3).
absl::StatusOr<int64_t> ToNumber(const Value& value) {
  if (const auto* number = std::get_if<int64_t>(&value.data)) return *number;
  if (const auto* number = std::get_if<double>(&value.data)) return WholeNumber(*number);
  const auto* text = std::get_if<std::string>(&value.data);
  if (text == nullptr) return WrongKind(value, "a number");
  int64_t parsed;
  if (!absl::SimpleAtoi(*text, &parsed)) return NotWhole(Quoted(*text));
  return parsed;
}

absl::StatusOr<bool> ToBool(const Value& value) {
  const auto* flag = std::get_if<bool>(&value.data);
  if (flag == nullptr) return WrongKind(value, "true or false");
  return *flag;
}

absl::StatusOr<std::vector<std::string>> ToStrings(const Value& value) {
  const auto* list = std::get_if<Value::List>(&value.data);
  if (list == nullptr) return WrongKind(value, "a list of strings");
  std::vector<std::string> strings;
  for (size_t i = 0; i < list->size(); ++i) {
    if ((*list)[i].is_nil()) continue;
    ASSIGN_OR_RETURN(std::string text, ToString((*list)[i]), "element ", i);
    strings.push_back(std::move(text));
  }
  return strings;
}

absl::Status MergeMap(const Value& value, std::map<std::string, std::string>& merged) {
  if (value.is_nil()) return absl::OkStatus();
  const auto* map = std::get_if<Value::Map>(&value.data);
  if (map == nullptr) return WrongKind(value, "a map of strings");
  for (const Entry& entry : *map) {
    if (entry.value.is_nil()) continue;
    ASSIGN_OR_RETURN(std::string text, ToString(entry.value), Quoted(entry.key));
    merged[entry.key] = std::move(text);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, std::string>> ToMergedMap(const Value& value) {
  const auto* list = std::get_if<Value::List>(&value.data);
  if (list == nullptr) return WrongKind(value, "a list of maps of strings");
  std::map<std::string, std::string> merged;
  for (const Value& map : *list) RETURN_IF_ERROR(MergeMap(map, merged));
  return merged;
}

absl::Status StoreAll(const Value& value, absl::string_view prefix,
                      const std::vector<Option>& options);

// Stores one value that is not nil. `path` is the option's, for the errors.
struct StoreVisitor {
  const Value& value;
  const std::string& path;

  template <typename Target, typename Result>
  absl::Status Assign(Target* target, absl::StatusOr<Result> result) const {
    RETURN_IF_ERROR(result.status(), path);
    *target = *std::move(result);
    return absl::OkStatus();
  }
  absl::Status operator()(std::string* target) const { return Assign(target, ToString(value)); }
  absl::Status operator()(int64_t* target) const { return Assign(target, ToNumber(value)); }
  absl::Status operator()(std::optional<int64_t>* target) const {
    return Assign(target, ToNumber(value));
  }
  absl::Status operator()(bool* target) const { return Assign(target, ToBool(value)); }
  absl::Status operator()(std::optional<bool>* target) const {
    return Assign(target, ToBool(value));
  }
  absl::Status operator()(std::vector<std::string>* target) const {
    return Assign(target, ToStrings(value));
  }
  absl::Status operator()(std::map<std::string, std::string>* target) const {
    return Assign(target, ToMergedMap(value));
  }
  absl::Status operator()(const OptionBlock& block) const {
    *block.present = true;
    return StoreAll(value, absl::StrCat(path, "."), block.options);
  }
  absl::Status operator()(const OptionBlockList& blocks) const {
    const auto* list = std::get_if<Value::List>(&value.data);
    if (list == nullptr) return Annotate(WrongKind(value, "a list of blocks"), path);
    for (size_t i = 0; i < list->size(); ++i) {
      RETURN_IF_ERROR(StoreAll((*list)[i], absl::StrCat(path, "[", i, "]."), blocks.add()));
    }
    return absl::OkStatus();
  }
};

const Option* FindOption(const std::vector<Option>& options, absl::string_view name) {
  for (const Option& option : options) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

absl::Status StoreAll(const Value& value, absl::string_view prefix,
                      const std::vector<Option>& options) {
  const auto* map = std::get_if<Value::Map>(&value.data);
  if (map == nullptr) {
    const absl::Status wrong = WrongKind(value, "a block of options");
    return prefix.empty() ? wrong : Annotate(wrong, absl::StripSuffix(prefix, "."));
  }
  for (const Entry& entry : *map) {
    const Option* option = FindOption(options, entry.key);
    if (option == nullptr || entry.value.is_nil()) continue;
    const std::string path = absl::StrCat(prefix, option->name);
    RETURN_IF_ERROR(std::visit(StoreVisitor{entry.value, path}, option->target));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DecodeOptions(absl::string_view msgpack, const std::vector<Option>& options) {
  if (msgpack.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Value root, ParseMsgpack(msgpack));
  if (root.is_nil()) return absl::OkStatus();
  return StoreAll(root, "", options);
}

}  // namespace jenkins_agent
