#include "driver/config/hclspec.h"

#include <string>

#include "driver/config/plugin_config.h"
#include "driver/config/task_config.h"

namespace jenkins_agent {
namespace {

hclspec::Spec BlockSpec(const std::string& name, const OptionBlock& block) {
  hclspec::Spec spec;
  spec.mutable_block_value()->set_name(name);
  *spec.mutable_block_value()->mutable_nested() = SpecFor(block.options);
  return spec;
}

hclspec::Spec BlockListSpec(const std::string& name, const OptionBlockList& blocks) {
  hclspec::Spec spec;
  spec.mutable_block_list()->set_name(name);
  *spec.mutable_block_list()->mutable_nested() = SpecFor(blocks.add());
  return spec;
}

// The name is always explicit: inside Default it is not taken from the map's key (3.1).
hclspec::Spec AttributeSpec(const Option& option) {
  hclspec::Spec spec;
  spec.mutable_attr()->set_name(option.name);
  spec.mutable_attr()->set_type(TypeName(option));
  return spec;
}

hclspec::Spec WithDefault(const hclspec::Spec& primary, const std::string& literal) {
  hclspec::Spec spec;
  *spec.mutable_default_()->mutable_primary() = primary;
  spec.mutable_default_()->mutable_default_()->mutable_literal()->set_value(literal);
  return spec;
}

hclspec::Spec OptionSpec(const Option& option) {
  if (const auto* block = std::get_if<OptionBlock>(&option.target)) {
    return BlockSpec(option.name, *block);
  }
  if (const auto* blocks = std::get_if<OptionBlockList>(&option.target)) {
    return BlockListSpec(option.name, *blocks);
  }
  const std::string literal = LiteralValue(option);
  return literal.empty() ? AttributeSpec(option) : WithDefault(AttributeSpec(option), literal);
}

}  // namespace

hclspec::Spec SpecFor(const std::vector<Option>& options) {
  hclspec::Spec spec;
  auto& attributes = *spec.mutable_object()->mutable_attributes();
  for (const Option& option : options) attributes[option.name] = OptionSpec(option);
  return spec;
}

hclspec::Spec TaskConfigSpec() {
  TaskConfig defaults;
  return SpecFor(OptionsFor(defaults));
}

hclspec::Spec PluginConfigSpec() {
  PluginConfig defaults;
  return SpecFor(OptionsFor(defaults));
}

}  // namespace jenkins_agent
