// The schemas that Nomad checks and decodes user configuration with (nomad-driver-protocol.md 3).
// Pure.
#pragma once

#include <vector>

#include "driver/config/options.h"
#include "proto/nomad_hclspec.pb.h"

namespace jenkins_agent {

namespace hclspec = hashicorp::nomad::plugins::shared::hclspec;

// Answer of TaskConfigSchema: the job's `config { }`.
hclspec::Spec TaskConfigSpec();
// Answer of ConfigSchema: the client agent's `plugin "..." { config { } }`.
hclspec::Spec PluginConfigSpec();

hclspec::Spec SpecFor(const std::vector<Option>& options);

}  // namespace jenkins_agent
