#include "driver/sandbox/overlay.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/sandbox/mount_fd.h"

namespace jenkins_agent {
namespace {

// The overlay looks its layers up by name: these names are the descriptors that were opened, as
// they are called in the work directory.
constexpr char kDescriptors[] = "/proc/self/fd";
constexpr size_t kMaxOptionBytes = 255;  // of one fsconfig string (fs/fsopen.c)

// Only to be copied by the overlay: whoever sees it in passing can do nothing with it.
constexpr uint64_t kPartAttributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

absl::StatusOr<Fd> ClonePart(const std::string& path) {
  ASSIGN_OR_RETURN(const Fd directory, OpenFile(path, O_PATH | O_DIRECTORY | O_NOFOLLOW));
  ASSIGN_OR_RETURN(Fd part, CloneTree(directory.get(), kPartAttributes), path);
  return part;
}

absl::StatusOr<Fd> CloneLayer(const std::string& path, int user_namespace) {
  ASSIGN_OR_RETURN(Fd layer, ClonePart(path));
  if (user_namespace >= 0) RETURN_IF_ERROR(MapIds(layer.get(), user_namespace), path);
  return layer;
}

absl::StatusOr<Fd> NewContext() {
  Fd context(::fsopen("overlay", FSOPEN_CLOEXEC));
  if (!context) return ErrnoStatus("open file system overlay");
  return context;
}

absl::Status Set(int context, const char* key, const std::string& value) {
  if (::fsconfig(context, FSCONFIG_SET_STRING, key, value.c_str(), 0) == 0) return absl::OkStatus();
  return ErrnoStatus(absl::StrCat("set overlay option ", key));
}

std::string Name(const Fd& directory) { return absl::StrCat(directory.get()); }

// Linux 6.5: one call for each layer. Unimplemented: an older kernel, which takes every option now
// and refuses this one when the file system is made.
absl::StatusOr<Fd> WithLayersOneByOne(const std::vector<Fd>& layers) {
  ASSIGN_OR_RETURN(Fd context, NewContext());
  for (const Fd& layer : layers) RETURN_IF_ERROR(Set(context.get(), "lowerdir+", Name(layer)));
  return context;
}

// All layers in one text.
absl::StatusOr<Fd> WithLayersTogether(const std::vector<Fd>& layers) {
  const std::string names = absl::StrJoin(
      layers, ":", [](std::string* text, const Fd& layer) { absl::StrAppend(text, layer.get()); });
  if (names.size() > kMaxOptionBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "has ", layers.size(), " layers, more than this kernel takes; Linux 6.5 takes 500"));
  }
  ASSIGN_OR_RETURN(Fd context, NewContext());
  RETURN_IF_ERROR(Set(context.get(), "lowerdir", names));
  return context;
}

absl::Status Finish(int context, const Fd& upper, const Fd& work) {
  if (upper) {
    RETURN_IF_ERROR(Set(context, "upperdir", Name(upper)));
    RETURN_IF_ERROR(Set(context, "workdir", Name(work)));
    if (::fsconfig(context, FSCONFIG_SET_FLAG, "volatile", nullptr, 0) != 0) {
      return ErrnoStatus("set overlay option volatile");
    }
  }
  if (::fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return ErrnoStatus("create file system overlay");
  }
  return absl::OkStatus();
}

// The upper directory's owner and mode are those of "/" in the sandbox.
absl::StatusOr<Fd> OpenWritable(const pb::ImageRoot& image, uint32_t root_id) {
  ASSIGN_OR_RETURN(Fd writable, image.writable_bytes() == 0 ? ClonePart(image.writable_dir())
                                                            : NewTmpfs(image.writable_bytes(), 0700,
                                                                       0, 0, kPartAttributes));
  if (::mkdirat(writable.get(), kUpperDir, 0755) != 0) return ErrnoStatus(kUpperDir);
  if (::fchownat(writable.get(), kUpperDir, root_id, root_id, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(kUpperDir);
  }
  if (::mkdirat(writable.get(), kWorkDir, 0700) != 0) return ErrnoStatus(kWorkDir);
  return writable;
}

absl::Status MountOn(int point, const OverlayParts& parts) {
  for (const Fd& layer : parts.layers) RETURN_IF_ERROR(Attach(layer.get(), point));
  return parts.writable ? Attach(parts.writable.get(), point) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<OverlayParts> OpenOverlayParts(const pb::ImageRoot& image, int user_namespace,
                                              uint32_t root_id) {
  OverlayParts parts;
  for (const std::string& layer : image.layers()) {
    ASSIGN_OR_RETURN(parts.layers.emplace_back(), CloneLayer(layer, user_namespace));
  }
  if (!image.writable_dir().empty()) {
    ASSIGN_OR_RETURN(parts.writable, OpenWritable(image, root_id), "directory for what is written");
  }
  ASSIGN_OR_RETURN(parts.names, OpenFile(kDescriptors, O_PATH | O_DIRECTORY));
  return parts;
}

absl::StatusOr<Fd> NewOverlay(const OverlayParts& parts, int point, uint64_t attributes) {
  RETURN_IF_ERROR(MountOn(point, parts));
  Fd upper, work;
  if (parts.writable) {
    constexpr int kFlags = O_PATH | O_DIRECTORY | O_NOFOLLOW;
    ASSIGN_OR_RETURN(upper, OpenAt(parts.writable.get(), kUpperDir, kFlags));
    ASSIGN_OR_RETURN(work, OpenAt(parts.writable.get(), kWorkDir, kFlags));
  }
  if (::fchdir(parts.names.get()) != 0) return ErrnoStatus(absl::StrCat("enter ", kDescriptors));
  absl::StatusOr<Fd> context = WithLayersOneByOne(parts.layers);
  absl::Status made = context.ok() ? Finish(context->get(), upper, work) : context.status();
  if (absl::IsInvalidArgument(made)) {
    ASSIGN_OR_RETURN(context, WithLayersTogether(parts.layers));
    made = Finish(context->get(), upper, work);
  }
  RETURN_IF_ERROR(made);
  Fd mount(::fsmount(context->get(), FSMOUNT_CLOEXEC,
                     static_cast<unsigned>(attributes | (upper ? 0 : MOUNT_ATTR_RDONLY))));
  if (!mount) return ErrnoStatus("make mount of overlay");
  return mount;
}

}  // namespace jenkins_agent
