#include "driver/nomad/constraint.h"

#include <re2/re2.h>

#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/nomad/version.h"

namespace jenkins_agent::nomad {
namespace {

using Value = std::optional<std::string>;

Value Find(const std::map<std::string, std::string>& values, absl::string_view key) {
  const auto found = values.find(std::string(key));
  return found == values.end() ? Value() : Value(found->second);
}

template <typename T>
bool Ordered(const std::string& operation, const T& left, const T& right) {
  if (operation == "<") return left < right;
  if (operation == "<=") return left <= right;
  if (operation == ">") return left > right;
  return left >= right;
}

// As integers, else as numbers, else as texts.
bool InOrder(const std::string& operation, const std::string& left, const std::string& right) {
  int64_t left_integer = 0, right_integer = 0;
  if (absl::SimpleAtoi(left, &left_integer) && absl::SimpleAtoi(right, &right_integer)) {
    return Ordered(operation, left_integer, right_integer);
  }
  double left_number = 0, right_number = 0;
  if (absl::SimpleAtod(left, &left_number) && absl::SimpleAtod(right, &right_number)) {
    return Ordered(operation, left_number, right_number);
  }
  return Ordered(operation, left, right);
}

bool RegexMatches(const std::string& text, const std::string& pattern) {
  RE2::Options options;
  options.set_log_errors(false);
  const RE2 regex(pattern, options);
  return regex.ok() && RE2::PartialMatch(text, regex);
}

std::set<std::string> Members(const std::string& text) {
  std::set<std::string> members;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    members.emplace(absl::StripAsciiWhitespace(part));
  }
  return members;
}

bool ContainsAll(const std::string& set, const std::string& wanted) {
  const std::set<std::string> members = Members(set);
  for (const std::string& one : Members(wanted)) {
    if (members.count(one) == 0) return false;
  }
  return true;
}

bool ContainsAny(const std::string& set, const std::string& wanted) {
  const std::set<std::string> members = Members(set);
  for (const std::string& one : Members(wanted)) {
    if (members.count(one) > 0) return true;
  }
  return false;
}

}  // namespace

Value Resolve(const std::string& target, const Node& node) {
  if (!absl::StartsWith(target, "${")) return target;
  if (target == "${node.unique.id}") return node.id;
  if (target == "${node.unique.name}") return node.name;
  if (target == "${node.datacenter}") return node.datacenter;
  if (target == "${node.class}") return node.node_class;
  if (target == "${node.pool}") return node.pool;
  absl::string_view key = target;
  if (absl::ConsumePrefix(&key, "${attr.")) {
    absl::ConsumeSuffix(&key, "}");
    return Find(node.attributes, key);
  }
  if (absl::ConsumePrefix(&key, "${meta.")) {
    absl::ConsumeSuffix(&key, "}");
    return Find(node.meta, key);
  }
  return std::nullopt;
}

bool NeedsDetails(const std::string& target) {
  return absl::StartsWith(target, "${attr.") || absl::StartsWith(target, "${meta.");
}

bool Meets(const Constraint& constraint, const Node& node) {
  const std::string& operation = constraint.operation;
  if (operation == "distinct_hosts" || operation == "distinct_property") return true;
  const Value left = Resolve(constraint.left, node), right = Resolve(constraint.right, node);
  if (operation == "is_set") return left.has_value();
  if (operation == "is_not_set") return !left.has_value();
  // Nomad compares an absent value as the empty text here (resolveTarget's zero value).
  if (operation == "!=" || operation == "not") return left.value_or("") != right.value_or("");
  if (!left || !right) return false;
  if (operation == "=" || operation == "==" || operation == "is") return *left == *right;
  if (operation == "<" || operation == "<=" || operation == ">" || operation == ">=") {
    return InOrder(operation, *left, *right);
  }
  if (operation == "version") return VersionMeets(*left, *right, VersionRules::kVersion);
  if (operation == "semver") return VersionMeets(*left, *right, VersionRules::kSemver);
  if (operation == "regexp") return RegexMatches(*left, *right);
  if (operation == "set_contains" || operation == "set_contains_all") {
    return ContainsAll(*left, *right);
  }
  if (operation == "set_contains_any") return ContainsAny(*left, *right);
  return false;
}

std::optional<bool> ParseBool(const std::string& text) {
  static const std::set<std::string>* const yes =
      new std::set<std::string>{"1", "t", "T", "true", "TRUE", "True"};
  static const std::set<std::string>* const no =
      new std::set<std::string>{"0", "f", "F", "false", "FALSE", "False"};
  if (yes->count(text) > 0) return true;
  if (no->count(text) > 0) return false;
  return std::nullopt;
}

bool IsDistinctHosts(const Constraint& constraint) {
  return constraint.operation == "distinct_hosts" && ParseBool(constraint.right).value_or(true);
}

bool GlobMatches(const std::string& pattern, const std::string& text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(pattern, '*');
  if (parts.size() == 1) return pattern == text;
  absl::string_view rest = text;
  if (!absl::ConsumePrefix(&rest, parts.front())) return false;
  for (size_t i = 1; i + 1 < parts.size(); ++i) {
    const size_t at = rest.find(parts[i]);
    if (at == absl::string_view::npos) return false;
    rest.remove_prefix(at + parts[i].size());
  }
  return absl::EndsWith(rest, parts.back());
}

}  // namespace jenkins_agent::nomad
