// One option: one row of a table. Nomad's schema (hclspec.h), the decoder (decode.h) and the tables
// of README.md (readme.h) all come from these rows.
//
// A table is bound to one configuration struct: OptionsFor(config) in the struct's header returns
// rows that point into `config`, so a table lives no longer than its struct. The type of an option
// is the type it points to, its default is the value that a new struct holds there.
//
// No option is required for Nomad: a value may also come from the task's environment, and a schema
// may only grow optional attributes, because jobs that run are decoded anew by a newer plugin.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace jenkins_agent {

struct Option;

// A block of further options; `present` tells that the user wrote it.
struct OptionBlock {
  bool* present;
  std::vector<Option> options;
};

// A block that may be written several times. `add` makes one more element and returns its rows,
// which are good until the next call.
struct OptionBlockList {
  std::function<std::vector<Option>()> add;
};

// std::map is list(map(string)) for the user, merged, the later map wins: HCL2 delivers a block or
// `x = { }` as a list of one object, which map(string) refuses (nomad-driver-protocol.md 3.2).
using OptionTarget =
    std::variant<std::string*, int64_t*, std::optional<int64_t>*, bool*, std::optional<bool>*,
                 std::vector<std::string>*, std::map<std::string, std::string>*, OptionBlock,
                 OptionBlockList>;

struct Option {
  std::string name;
  OptionTarget target;
  std::string help;  // one line of Markdown for README.md
};

// Type as HCL writes it: string, number, bool, list(string), list(map(string)), block, blocks.
std::string TypeName(const Option& option);

// The value the option holds, as an HCL literal; empty when there is none (an empty string or list,
// a block). For the table of a new struct that is the default.
std::string LiteralValue(const Option& option);

}  // namespace jenkins_agent
