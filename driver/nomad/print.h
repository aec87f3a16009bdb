// An explanation as text for people and as JSON for programs. Pure.
#pragma once

#include <string>
#include <vector>

#include "driver/nomad/demand.h"
#include "driver/nomad/explanation.h"

namespace jenkins_agent::nomad {

struct TextOptions {
  bool terminal = false;  // bars and bold; otherwise plain ASCII
  size_t width = 0;      // of the terminal: bars for which there is no room are left out; 0: no end
  size_t max_nodes = 8;  // in the table; the rest is counted
};

std::string ExplanationText(const Explanation& explanation, const TextOptions& options);
std::string ExplanationJson(const Explanation& explanation);

std::string DemandText(const Demand& demand);
std::string DemandJson(const Demand& demand);

// Rows of cells, the first one the heading, in columns two spaces apart; numbers to the right. No
// blanks at a line's end.
std::string Table(const std::vector<std::vector<std::string>>& rows,
                  const std::vector<bool>& to_the_right, const std::string& indent);

}  // namespace jenkins_agent::nomad
