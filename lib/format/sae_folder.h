/* SPDX-License-Identifier: MIT
 *
 * What a SAELens v6 folder holds, for its writer and its reader.
 */
#ifndef AMS_SAE_FOLDER_H
#define AMS_SAE_FOLDER_H

#include "format/format.h"

/* Architectures by name, and the activation that each stands for at inference. */
typedef struct ams_architecture {
    const char *name;
    int32_t activation;
    bool transcoder;
} ams_architecture;
enum { AMS_ARCHITECTURES = 6 };
extern const ams_architecture ams_architectures[AMS_ARCHITECTURES];

/* Tensors of the file, each wanted by some activations and an error with the others. */
typedef struct ams_folder_tensor {
    const char *name;
    int32_t parameter;
    uint32_t activations; /* bit per activation */
} ams_folder_tensor;
enum { AMS_FOLDER_TENSORS = 8 };
extern const ams_folder_tensor ams_folder_tensors[AMS_FOLDER_TENSORS];

/* The two files of one save belong together. The weights' metadata holds the first pair as a mark,
 * and cfg.json's the CRC-64 of the marked file: what SAELens writes has no mark, so that a CRC it
 * carried over from a folder that it read means nothing. */
#define AMS_FOLDER_MARK "checksum"
#define AMS_FOLDER_MARK_TEXT "cfg.json: metadata.weights_crc64"
#define AMS_FOLDER_CRC "weights_crc64"

/* "dir/name" in new memory; NULL and E_NOMEM set if there is none. */
char *ams_path_join(atmsae_context *ctx, const char *dir, const char *name);

#endif
