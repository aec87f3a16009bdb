#include "driver/config/options.h"

#include "absl/strings/str_cat.h"

namespace jenkins_agent {
namespace {

struct TypeNameVisitor {
  std::string operator()(const std::string*) const { return "string"; }
  std::string operator()(const int64_t*) const { return "number"; }
  std::string operator()(const std::optional<int64_t>*) const { return "number"; }
  std::string operator()(const bool*) const { return "bool"; }
  std::string operator()(const std::optional<bool>*) const { return "bool"; }
  std::string operator()(const std::vector<std::string>*) const { return "list(string)"; }
  std::string operator()(const std::map<std::string, std::string>*) const {
    return "list(map(string))";
  }
  std::string operator()(const OptionBlock&) const { return "block"; }
  std::string operator()(const OptionBlockList&) const { return "blocks"; }
};

struct LiteralVisitor {
  // Defaults are constants of ours without quotes, backslashes or templates.
  std::string operator()(const std::string* value) const {
    return value->empty() ? "" : absl::StrCat("\"", *value, "\"");
  }
  std::string operator()(const int64_t* value) const { return absl::StrCat(*value); }
  std::string operator()(const std::optional<int64_t>* value) const {
    return value->has_value() ? absl::StrCat(**value) : "";
  }
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const std::optional<bool>* value) const {
    return value->has_value() ? (**value ? "true" : "false") : "";
  }
  std::string operator()(const std::vector<std::string>*) const { return ""; }
  std::string operator()(const std::map<std::string, std::string>*) const { return ""; }
  std::string operator()(const OptionBlock&) const { return ""; }
  std::string operator()(const OptionBlockList&) const { return ""; }
};

}  // namespace

std::string TypeName(const Option& option) { return std::visit(TypeNameVisitor(), option.target); }

std::string LiteralValue(const Option& option) {
  return std::visit(LiteralVisitor(), option.target);
}

}  // namespace jenkins_agent
