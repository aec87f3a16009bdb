// What the programs in the plugin's file tell each other beside their own protocols.
#pragma once

namespace jenkins_agent {

// The plugin's only argument when doctor starts it for a trial (driver/service/trial.h).
inline constexpr char kTrialRole[] = "trial";
// Environment variable in which the plugin's file, run by a person, tells the command line where it
// is itself: the command line runs from a memfd.
inline constexpr char kPluginFileVariable[] = "NOMAD_DRIVER_JENKINS_AGENT_FILE";

}  // namespace jenkins_agent
