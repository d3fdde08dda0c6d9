/* SPDX-License-Identifier: MIT
 *
 * Signals that ask a run to stop: it finishes the step that it is in, saves a checkpoint and ends.
 *
 * One stop often comes as several signals: a supervisor passes on what the terminal has sent to the whole group, a
 * limit of CPU time is signalled again each second. So only a person's second SIGINT or SIGTERM counts, one that comes
 * a second or more after the message that says what it does.
 */
#ifndef STOP_H
#define STOP_H

#include <stdbool.h>

/* From here on. Signals that the parent has us ignore stay ignored. */
void stop_catch(void);
/* Whether one has come. */
bool stop_asked(void);

#endif
