// The option tables of README.md, in Markdown. Pure.
#pragma once

#include <string>
#include <vector>

#include "driver/config/options.h"

namespace jenkins_agent {

// Header and one row per option; the options of a block follow its row as `block.option`. Every
// line ends with a newline.
std::string MarkdownTable(const std::vector<Option>& options);

std::string TaskOptionTable();
std::string PluginOptionTable();

}  // namespace jenkins_agent
