#include "driver/config/readme.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "driver/config/plugin_config.h"
#include "driver/config/task_config.h"

namespace jenkins_agent {
namespace {

void AppendRows(absl::string_view prefix, const std::vector<Option>& options, std::string& table) {
  for (const Option& option : options) {
    const std::string path = absl::StrCat(prefix, option.name);
    const std::string literal = LiteralValue(option);
    absl::StrAppend(&table, "| `", path, "` | ", TypeName(option), " | ",
                    literal.empty() ? "–" : absl::StrCat("`", literal, "`"), " | ", option.help,
                    " |\n");
    if (const auto* block = std::get_if<OptionBlock>(&option.target)) {
      AppendRows(absl::StrCat(path, "."), block->options, table);
    } else if (const auto* blocks = std::get_if<OptionBlockList>(&option.target)) {
      AppendRows(absl::StrCat(path, "."), blocks->add(), table);
    }
  }
}

}  // namespace

std::string MarkdownTable(const std::vector<Option>& options) {
  std::string table = "| option | type | default | meaning |\n|---|---|---|---|\n";
  AppendRows("", options, table);
  return table;
}

std::string TaskOptionTable() {
  TaskConfig defaults;
  return MarkdownTable(OptionsFor(defaults));
}

std::string PluginOptionTable() {
  PluginConfig defaults;
  return MarkdownTable(OptionsFor(defaults));
}

}  // namespace jenkins_agent
